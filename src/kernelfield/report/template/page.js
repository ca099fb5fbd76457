(() => {
  "use strict";
  const data = JSON.parse(document.getElementById("page-data").textContent);
  const model = (name, documents = Bokeh.documents) => documents.map((each) => each.get_model_by_name(name)).find(Boolean);
  const proper = (number, digits) => number.toPrecision(digits).replace("-", "\u2212");

  // Red for positive, blue for negative, white for zero.
  const STOPS = [[5, 48, 97], [33, 102, 172], [67, 147, 195], [146, 197, 222], [209, 229, 240], [247, 247, 247],
    [253, 219, 199], [244, 165, 130], [214, 96, 77], [178, 24, 43], [103, 0, 31]];
  const colour = (share) => {
    const place = Math.min(1, Math.max(0, (share + 1) / 2)) * (STOPS.length - 1);
    const low = Math.min(Math.floor(place), STOPS.length - 2);
    return STOPS[low].map((value, i) => Math.round(value + (place - low) * (STOPS[low + 1][i] - value)));
  };
  const scale = STOPS.map((stop) => `rgb(${stop.join(",")})`).join(",");
  document.documentElement.style.setProperty("--scale", `linear-gradient(90deg, ${scale})`);

  // Buttons of which one is pressed.
  const choose = (id, chosen) => {
    const buttons = [...(document.getElementById(id)?.querySelectorAll("button") ?? [])];
    for (const button of buttons) {
      button.addEventListener("click", () => {
        for (const each of buttons) each.setAttribute("aria-pressed", String(each === button));
        chosen(button.dataset.value);
      });
    }
  };

  // Plots keep their width on paper: the page is shrunk as a whole.
  const measure = () => {
    const width = document.body.clientWidth;
    document.documentElement.style.setProperty("--screen", `${width}px`);
    document.documentElement.style.setProperty("--shrink", Math.min(1, 680 / (width - 48)));
  };
  addEventListener("resize", measure);
  measure();

  if (data.movie) kernels(data.movie);
  if (data.densities) densities(data.densities);
  copying();

  function kernels(movie) {
    const size = movie.samples.length, pairs = (size * (size + 1)) / 2;
    const MISSING = -32768, LARGEST = 32767;
    for (const result of movie.results) {
      for (const panel of Object.values(result.panels)) {
        const bytes = Uint8Array.from(atob(panel.data), (letter) => letter.charCodeAt(0));
        panel.values = new Int16Array(bytes.buffer);
        delete panel.data;
      }
    }
    const limits = Object.fromEntries(movie.rows.map((row) => [row.kind, row.limit]));
    const slider = document.getElementById("time"), told = document.getElementById("step");
    const readout = document.getElementById("entry"), play = document.getElementById("play");
    const small = document.createElement("canvas");
    small.width = small.height = size;
    const pen = small.getContext("2d"), image = pen.createImageData(size, size);
    let beside = 1;

    const canvases = [...document.querySelectorAll("canvas.kernel")].map((canvas) => {
      canvas.width = canvas.height = size * Math.max(2, Math.ceil(480 / size));
      const result = () => movie.results[canvas.dataset.place === "0" ? 0 : beside];
      const value = (row, column) => {
        const panel = result().panels[canvas.dataset.name], now = Number(slider.value);
        if (!panel || now >= result().reached) return NaN;
        const [high, low] = row > column ? [row, column] : [column, row];
        const code = panel.values[Math.min(now, panel.frames - 1) * pairs + (high * (high + 1)) / 2 + low];
        return code === MISSING ? NaN : (code / LARGEST) * panel.scale;
      };
      const draw = () => {
        const limit = limits[canvas.dataset.row];
        for (let row = 0; row < size; row++) {
          for (let column = 0; column < size; column++) {
            const entry = value(row, column), at = 4 * (row * size + column);
            image.data.set(Number.isNaN(entry) ? [255, 255, 255, 0] : [...colour(entry / limit), 255], at);
          }
        }
        pen.putImageData(image, 0, 0);
        const brush = canvas.getContext("2d"), cell = canvas.width / size;
        brush.imageSmoothingEnabled = false;
        brush.clearRect(0, 0, canvas.width, canvas.height);
        brush.drawImage(small, 0, 0, canvas.width, canvas.height);
        brush.fillStyle = "rgba(20, 25, 30, 0.55)";
        let edge = 0;
        for (const count of movie.counts.slice(0, -1)) {
          edge += count;
          brush.fillRect(Math.round(edge * cell) - 1, 0, 2, canvas.height);
          brush.fillRect(0, Math.round(edge * cell) - 1, canvas.width, 2);
        }
        const caption = canvas.parentElement.querySelector("figcaption");
        if (caption) {
          const shown = result(), ended = Number(slider.value) >= shown.reached;
          const without = shown.panels[canvas.dataset.name] ? "" : " (not tracked)";
          caption.textContent = shown.name + (without || (ended ? " (ended earlier)" : ""));
          caption.title = shown.name;
        }
      };
      const point = (event) => {
        const box = canvas.getBoundingClientRect();
        const place = (at, start, length) => Math.min(size - 1, Math.max(0, Math.floor(((at - start) / length) * size)));
        const row = place(event.clientY, box.top, box.height), column = place(event.clientX, box.left, box.width);
        const entry = value(row, column);
        const who = (at) => `sample ${movie.samples[at]} (${movie.targets[at]})`;
        const number = Number.isNaN(entry) ? "no value" : proper(entry, 4);
        const name = movie.results.length > 1 ? `${result().name}: ` : "";
        readout.textContent = canvas.title = `${name}${canvas.dataset.name} of ${who(row)} and ${who(column)} = ${number}`;
      };
      canvas.addEventListener("pointermove", point);
      canvas.addEventListener("pointerdown", point);
      return draw;
    });

    const show = () => {
      const step = movie.steps[Number(slider.value)];
      told.textContent = `${data.unit} ${step} of ${movie.steps[movie.steps.length - 1]}`;
      told.title = `training time ${proper(movie.times[Number(slider.value)], 4)}`;
      slider.setAttribute("aria-valuetext", told.textContent);
      for (const draw of canvases) draw();
      for (const each of Bokeh.documents) {
        for (const plot of each.roots()) {
          for (const part of plot.center ?? []) if (part.name === "now") part.location = step;
        }
      }
    };
    slider.addEventListener("input", show);
    choose("beside", (value) => { beside = Number(value); show(); });

    let timer = null;
    const stop = () => {
      clearInterval(timer);
      timer = null;
      play.textContent = "\u25b6";
      play.setAttribute("aria-label", "Play");
    };
    play.addEventListener("click", () => {
      if (timer) return stop();
      if (slider.value === slider.max) slider.value = 0;
      play.textContent = "\u275a\u275a";
      play.setAttribute("aria-label", "Pause");
      timer = setInterval(() => {
        if (slider.value === slider.max) return stop();
        slider.value = Number(slider.value) + 1;
        show();
      }, 110);
      show();
    });
    slider.addEventListener("pointerdown", stop);
    show();
  }

  function densities(found) {
    let field = Object.keys(found.fields)[0], at = found.steps.length - 1;
    const show = () => {
      for (const layer of found.layers) {
        const curves = found.curves[field][layer], now = curves.at[found.steps[at]] ?? {};
        const plot = model(`density-${layer}`);
        plot.x_range.setv({ start: curves.range[0], end: curves.range[1] });
        plot.y_range.setv({ start: 0, end: curves.top });
        for (const drawn of plot.renderers) {
          const source = drawn.data_source;
          source.data = now[source.name] ?? { x: [], left: [], right: [], y: [] };
        }
      }
    };
    choose("field", (value) => { field = value; show(); });
    const recorded = document.getElementById("recorded");
    if (recorded.matches("input")) {
      const told = document.getElementById("recorded-step");
      const tell = () => { told.textContent = `${data.unit} ${found.steps[at]}`; };
      recorded.addEventListener("input", () => { at = Number(recorded.value); tell(); show(); });
      tell();
    } else {
      choose("recorded", (value) => { at = Number(value); show(); });
    }
  }

  function copying() {
    for (const button of document.querySelectorAll("button.copy")) {
      button.addEventListener("click", async () => {
        const source = document.getElementById(button.dataset.copy);
        let done = true;
        try {
          await navigator.clipboard.writeText(source.textContent);
        } catch {
          const range = document.createRange(), selection = getSelection();
          range.selectNodeContents(source);
          selection.removeAllRanges();
          selection.addRange(range);
          done = document.execCommand("copy");
          if (done) selection.removeAllRanges();
        }
        button.textContent = done ? "Copied" : "Selected";
        setTimeout(() => { button.textContent = "Copy"; }, 1600);
      });
    }
  }
})();
