(function () {
  "use strict";
  var MARKED = { marks: true, rings: true };

  function element(name, className, text, parent) {
    var made = document.createElement(name);
    if (className) made.className = className;
    if (text) made.textContent = text;
    if (parent) parent.appendChild(made);
    return made;
  }

  function number(value) {
    var size = Math.abs(value);
    if (value === 0) return "0";
    if (size >= 100) return Math.round(value).toLocaleString("en");
    return (size < 1e-3 ? value.toExponential(2) : value.toPrecision(3)).replace("-", "\u2212");
  }

  function whole(value) {
    return Math.round(value).toLocaleString("en");
  }

  /* The style sheet is the one place that knows what a series looks like. */
  function look(chart, style) {
    var line = document.createElementNS(chart.namespaceURI, "line");
    line.setAttribute("class", style);
    chart.appendChild(line);
    var css = getComputedStyle(line);
    var dash = css.strokeDasharray === "none" ? [] : css.strokeDasharray.split(",").map(parseFloat);
    var found = { stroke: css.stroke, width: parseFloat(css.strokeWidth), alpha: Number(css.opacity), dash: dash };
    chart.removeChild(line);
    return found;
  }

  function zoom(figure) {
    var told = JSON.parse(figure.dataset.zoom), chart = figure.querySelector(".chart");
    var data = uPlot.join(told.series.map(function (one) { return [one.x, one.y]; }));
    var steps = data[0], first = steps[0], last = steps[steps.length - 1];
    var least = Math.min(last - first, 4 * (last - first) / (steps.length - 1));
    var plot, range = [first, last];

    var box = element("div", "zoom", "");
    var name = element("p", "zoom-name", "", box);
    element("b", "", told.title, name);
    element("span", "unit", " " + told.unit, name);
    var legend = element("div", "zoom-legend", "", box);
    var place = element("div", "zoom-plot", "", box);
    var bar = element("div", "zoom-bar", "", box);
    var shown = element("output", "muted", "");

    function show(low, high) {
      var span = Math.min(last - first, Math.max(least, high - low));
      low = Math.min(last - span, Math.max(first, (low + high - span) / 2));
      range = [low, low + span];
      plot.setScale("x", { min: range[0], max: range[1] });
      tell();
    }

    function tell() {
      var is_all = range[1] - range[0] > (last - first) * 0.999;
      var text = "Steps " + whole(range[0]) + " to " + whole(range[1]);
      if (!is_all) text += " of " + whole(first) + " to " + whole(last);
      if (told.mean > 1) text += "; each point is the mean of " + told.mean + " logged ones";
      shown.textContent = text;
      buttons.all.disabled = buttons.out.disabled = is_all;
      buttons.left.disabled = range[0] <= first;
      buttons.right.disabled = range[1] >= last;
      buttons["in"].disabled = range[1] - range[0] <= least;
    }

    var acts = {
      "in": function (span) { show(range[0] + span / 4, range[1] - span / 4); },
      out: function (span) { show(range[0] - span / 2, range[1] + span / 2); },
      left: function (span) { show(range[0] - span / 2, range[1] - span / 2); },
      right: function (span) { show(range[0] + span / 2, range[1] + span / 2); },
      all: function () { show(first, last); }
    };
    function act(which) { acts[which](range[1] - range[0]); }

    var buttons = {};
    [["in", "+", "Zoom in"], ["out", "\u2212", "Zoom out"], ["left", "\u2190", "Earlier steps"],
      ["right", "\u2192", "Later steps"], ["all", "Whole curve", "Whole curve"]].forEach(function (one) {
      var button = element("button", "", one[1], bar);
      button.type = "button";
      button.title = one[2];
      button.setAttribute("aria-label", one[2]);
      button.addEventListener("click", function () { act(one[0]); });
      buttons[one[0]] = button;
    });
    bar.appendChild(shown);
    shown.setAttribute("aria-live", "polite");
    element("span", "zoom-hint muted", "Drag over the curve to zoom in, double-click for all of it; keys: + \u2212 \u2190 \u2192 Esc.", bar);
    var keys = { "+": "in", "=": "in", "-": "out", ArrowLeft: "left", ArrowRight: "right", Escape: "all", "0": "all" };
    figure.addEventListener("keydown", function (event) {
      if (!keys[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      act(keys[event.key]);
    });

    function values(u) {
      /* As on paper: what was measured is written beside its mark, while there are few. */
      var page = getComputedStyle(figure);
      u.ctx.font = 11 * uPlot.pxRatio + "px " + page.fontFamily;
      u.ctx.fillStyle = page.getPropertyValue("--muted");
      u.ctx.textAlign = "left";
      u.ctx.textBaseline = "bottom";
      u.ctx.fillText("step", 0, u.ctx.canvas.height - 3 * uPlot.pxRatio);
      told.series.forEach(function (one, index) {
        if (!MARKED[one.style]) return;
        var seen = one.x.map(function (x, at) { return [x, one.y[at]]; }).filter(function (point) {
          return point[0] >= range[0] && point[0] <= range[1];
        });
        if (seen.length > 8) return;
        var css = getComputedStyle(figure), ratio = uPlot.pxRatio;
        u.ctx.save();
        u.ctx.font = "600 " + 11 * ratio + "px " + css.fontFamily;
        u.ctx.fillStyle = u.series[index + 1].stroke();
        u.ctx.strokeStyle = css.getPropertyValue("--paper");
        u.ctx.lineWidth = 4 * ratio;
        u.ctx.lineJoin = "round";
        u.ctx.textBaseline = "alphabetic";
        seen.forEach(function (point) {
          var x = u.valToPos(point[0], "x", true), y = u.valToPos(point[1], "y", true) - 9 * ratio;
          var ends = [u.bbox.left + 14 * ratio, u.bbox.left + u.bbox.width - 14 * ratio];
          u.ctx.textAlign = x < ends[0] ? "left" : x > ends[1] ? "right" : "center";
          u.ctx.strokeText(number(point[1]), x, y);
          u.ctx.fillText(number(point[1]), x, y);
        });
        u.ctx.restore();
      });
    }

    function draw() {
      if (plot) plot.destroy();
      legend.textContent = "";
      var css = getComputedStyle(figure), font = "11px " + css.fontFamily;
      var muted = css.getPropertyValue("--muted"), rule = css.getPropertyValue("--rule"), paper = css.getPropertyValue("--paper");
      var looks = told.series.map(function (one) { return look(chart, one.style); });
      var axis = { stroke: muted, font: font, grid: { stroke: rule, width: 1 }, ticks: { stroke: rule, width: 1, size: 4 } };
      plot = new uPlot({
        width: place.clientWidth,
        height: place.clientHeight,
        padding: [14, 18, 0, 0],
        scales: {
          x: { time: false },
          y: { range: function (u, low, high) {
            if (low === null) return [0, 1];
            return uPlot.rangeNum(told.zero ? Math.min(0, low) : low, told.zero ? Math.max(0, high) : high, 0.1, true);
          } }
        },
        cursor: { drag: { x: true, y: false, setScale: false, dist: 4 }, y: false, dataIdx: function (u, index, at) { return at; } },
        legend: { mount: function (u, table) { legend.appendChild(table); }, markers: {
          width: function (u, index) { return Math.max(1, Math.round(looks[index - 1].width)); },
          stroke: function (u, index) { return looks[index - 1].stroke; },
          dash: function (u, index) {
            var dash = looks[index - 1].dash;
            return !dash.length ? "solid" : dash[0] < 4 ? "dotted" : "dashed";
          }
        } },
        axes: [
          uPlot.assign({}, axis, { size: 26, grid: { show: false }, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5, 5e5, 1e6, 1e7, 1e8] }),
          uPlot.assign({}, axis, { size: 56 })
        ],
        series: [{ label: "step", value: function (u, value) { return value === null ? "\u2013" : whole(value); } }].concat(
          told.series.map(function (one, index) {
            var style = looks[index], is_marked = MARKED[one.style];
            return {
              label: one.label || told.title,
              stroke: function () { return style.stroke; },
              width: style.width,
              alpha: style.alpha,
              dash: style.dash,
              spanGaps: true,
              paths: is_marked && one.x.length < 3 ? function () { return null; } : undefined,
              points: is_marked
                ? { show: true, size: 8, width: 1.5, stroke: one.style === "rings" ? style.stroke : paper, fill: one.style === "rings" ? paper : style.stroke }
                : { size: 5 },
              value: function (u, value) { return value == null ? "\u2013" : number(value); }
            };
          })
        ),
        hooks: {
          draw: [values, function () { figure.classList.add("live"); }],  /* only now does the static chart give way */
          setSelect: [function (u) {
            var left = u.select.left, width = u.select.width;
            u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
            if (width > 4) show(u.posToVal(left, "x"), u.posToVal(left + width, "x"));
          }]
        }
      }, data, place);
      var drawn = place.querySelector(".u-wrap");
      drawn.setAttribute("role", "img");
      drawn.setAttribute("aria-label", chart.querySelector("title").textContent);
      plot.over.addEventListener("dblclick", acts.all);
      show(range[0], range[1]);
    }

    figure.appendChild(box);
    draw();
    new ResizeObserver(function () {
      if (place.clientWidth && place.clientWidth !== plot.width)
        plot.setSize({ width: place.clientWidth, height: place.clientHeight });
    }).observe(place);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  }

  Array.prototype.forEach.call(document.querySelectorAll("figure[data-zoom]"), zoom);
})();
