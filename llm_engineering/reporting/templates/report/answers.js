(function () {
  "use strict";
  var form = document.getElementById("answers-filter");
  var rows = Array.prototype.slice.call(document.querySelectorAll(".scored-row"));
  if (!form) return;
  var texts = rows.map(function (row) { return row.textContent.toLowerCase(); });
  function apply() {
    var words = form.elements.words.value.toLowerCase().trim();
    var wanted = form.elements.score.value + ":" + form.elements.outcome.value;
    var all = form.elements.outcome.value === "all", shown = 0;
    rows.forEach(function (row, index) {
      var outcomes = row.dataset.outcomes.split(" ");
      var fits = (all || outcomes.indexOf(wanted) >= 0) && texts[index].indexOf(words) >= 0;
      row.hidden = !fits;
      if (fits) shown += 1;
    });
    document.getElementById("answers-shown").textContent = shown + " of " + rows.length + " rows";
  }
  form.addEventListener("input", apply);
  form.addEventListener("submit", function (event) { event.preventDefault(); });
  function reveal() {
    var row = document.getElementById(location.hash.slice(1));
    if (!row || !row.classList.contains("scored-row")) return;
    row.closest("details").open = true;
    row.hidden = false;
    row.scrollIntoView();
  }
  window.addEventListener("hashchange", reveal);
  form.hidden = false;
  apply();
  reveal();
})();
