"""The `tutelage` command: one thin module a group of verbs; torch is loaded only by a verb that needs it."""
