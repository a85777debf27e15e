"""What makes training and sampling quick; nothing here knows a method. One module a duty."""
