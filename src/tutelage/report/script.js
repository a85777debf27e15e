(function () {
  var root = document.documentElement;
  root.classList.add("js");
  var key = "tutelage-theme";
  function dark() {
    var t = root.dataset.theme;
    return t ? t === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  }
  var button = document.getElementById("theme");
  function say() { button.textContent = dark() ? "Light" : "Dark"; }
  // A file opened from disk may be refused storage; the choice then lasts until the page is closed.
  try { var kept = localStorage.getItem(key); if (kept === "light" || kept === "dark") root.dataset.theme = kept; } catch (e) {}
  say();
  button.addEventListener("click", function () {
    root.dataset.theme = dark() ? "light" : "dark";
    try { localStorage.setItem(key, root.dataset.theme); } catch (e) {}
    say();
  });
  document.querySelectorAll(".picker").forEach(function (box) {
    var select = box.querySelector("select"), all = box.querySelectorAll(".one");
    function show() { all.forEach(function (one, i) { one.classList.toggle("on", i === select.selectedIndex); }); }
    select.addEventListener("change", show);
    box.querySelectorAll("button").forEach(function (b) {
      b.addEventListener("click", function () {
        select.selectedIndex = (select.selectedIndex + Number(b.value) + all.length) % all.length;
        show();
      });
    });
    show();
  });
  // What is below the window is laid out after the first paint, so that the page opens at once; then links to it land right.
  function all() { root.classList.add("all"); }
  addEventListener("load", function () { requestAnimationFrame(function () { setTimeout(all, 0); }); });
  addEventListener("beforeprint", all);
  addEventListener("beforeprint", function () { document.querySelectorAll("details.curves").forEach(function (d) { d.open = true; }); });
})();
