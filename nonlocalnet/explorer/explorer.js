// The page: one place is asked about, everything else follows from it in `draw`.

const data = JSON.parse(document.getElementById("data").textContent);
const blocks = data.blocks.map(packed => new Block(packed));
const [FRAMES, HEIGHT, WIDTH] = data.size;
const COARSE = WIDTH < 64;  // frames this small are shown with their pixels
const $ = id => document.getElementById(id);
const pictures = data.frames.map(source => Object.assign(new Image(), { src: source }));

// at: (frame, y, x) that is asked about; over: the same under the pointer; frame: in the large view
const state = { block: data.start.block, view: "row", draw: "arrows", top: data.top,
  at: data.start.at, over: null, frame: Math.round(data.start.at[0]), playing: 0 };

const percent = share => {
  const value = 100 * share;
  if (value > 0 && value < 0.005) return "< 0.01 %";
  return value.toFixed(value >= 9.95 || value === 0 ? 0 : value >= 0.995 ? 1 : 2) + " %";
};
const when = frame => data.seconds ? data.seconds[frame].toFixed(2) + " s"
  : FRAMES > 1 ? "frame " + frame : "";
const frameOf = place => Math.min(Math.max(Math.ceil(place - 0.5), 0), FRAMES - 1);

// What is shown: the map of the place asked about, over which grid, and its figures.
function look() {
  const block = blocks[state.block], place = state.over || state.at, row = state.view === "row";
  const began = performance.now();
  const here = row ? [block.cells, block.grid] : [block.keys, block.keyGrid];
  const [size, grid] = row ? [block.keys, block.keyGrid] : [block.cells, block.grid];
  const cell = cellAt(place, ...here);
  const map = row ? block.row(cell) : block.column(cell);
  const found = figures(map, state.top);
  return { ...found, block, row, cell, map, size, grid, here, place,
    taken: performance.now() - began };
}

function draw() {
  const shown = look();
  const peak = shown.heaviest.length ? Math.abs(shown.map.weights[shown.heaviest[0]]) : 0;
  const frames = thumbs(shown.size[0]), own = ownThumb(shown);
  frames.forEach((thumb, t) => {
    thumb.frame = t === own ? frameOf(shown.place[0]) : frameOf(centre(t, shown.grid[0]));
    thumb.figure.classList.toggle("own", t === own);
    paint(thumb.canvas, thumb.frame, t, shown, peak);
    weigh(thumb, t, shown);
  });
  const home = frameOf(shown.place[0]) === state.frame;
  const cell = home ? own : nearest(state.frame, shown.grid[0], shown.size[0]);
  paint($("stage"), state.frame, cell, shown, peak);
  stageLines(shown, cell, home, peak);
  stripLines(shown, frames, own, peak);
  tell(shown);
}

// The small frame that stands for the place's own one.
function ownThumb({ place, size, grid }) {
  return nearest(frameOf(place[0]), grid[0], size[0]);
}

let small = [];
function thumbs(count) {
  if (small.length === count) return small;
  const wide = innerWidth > 736, most = wide ? (count <= 16 ? 4 : 6) : 3;
  const columns = count === 1 ? 1 : count <= 4 ? 2 : Math.min(most, Math.ceil(count / 2));
  $("view").classList.toggle("single", count === 1);
  $("strip").style.gridTemplateColumns = `repeat(${columns}, minmax(0, 1fr))`;
  small = Array.from({ length: count }, () => {
    const [figure, canvas, caption, time, held, bar] =
      ["figure", "canvas", "figcaption", "span", "span", "div"].map(n => document.createElement(n));
    bar.className = "weight";
    bar.append(...["i", "i", "b"].map(n => document.createElement(n)));
    caption.append(time, held);
    figure.append(canvas, bar, caption);
    const thumb = { figure, canvas, time, held, bar, frame: 0 };
    listen(canvas, () => thumb.frame);
    return thumb;
  });
  $("strip").replaceChildren(...small.map(thumb => thumb.figure));
  return small;
}

// A frame with the weights of one frame of the grid over it.
function paint(canvas, frame, cell, { map, size, grid }, peak) {
  const scale = devicePixelRatio || 1, width = Math.max(1, Math.round(canvas.clientWidth * scale));
  const height = Math.max(1, Math.round(width * HEIGHT / WIDTH));
  if (canvas.width !== width || canvas.height !== height)
    [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d"), heat = state.draw !== "arrows";
  context.imageSmoothingEnabled = !COARSE;
  context.filter = heat ? data.dim : "none";
  context.drawImage(pictures[frame], 0, 0, width, height);
  context.filter = "none";
  if (!heat || !peak) return;
  const [, rows, columns] = size, zoom = width / WIDTH;
  for (let n = cell * rows * columns; n < (cell + 1) * rows * columns; n++) {
    const weight = map.weights[n] / peak;
    if (!weight) continue;
    const [, y, x] = placeOf(n, size, grid);
    const [left, right] = edges(x, n % columns, columns, grid[2][0], WIDTH, zoom);
    const [up, down] = edges(y, Math.floor(n / columns) % rows, rows, grid[1][0], HEIGHT, zoom);
    context.fillStyle = colour(weight);
    context.fillRect(left, up, right - left, down - up);
  }
}

// Each pixel takes the cell with the nearest centre, so the outermost ones reach the border.
function edges(middle, index, count, stride, length, zoom) {
  const low = index ? middle - stride / 2 + 0.5 : 0;
  const high = index < count - 1 ? middle + stride / 2 + 0.5 : length;
  return [low, high].map(edge => Math.round(Math.min(Math.max(edge, 0), length) * zoom));
}

const WARM = [[11, 60, 140], [47, 134, 224], [140, 203, 255], [255, 255, 255]];
const COLD = [[107, 47, 0], [213, 94, 0], [255, 176, 102], [255, 240, 221]];
function colour(weight) {
  const size = Math.abs(weight), ramp = weight > 0 ? WARM : COLD;
  const at = Math.min(size * 3, 2.999), low = ramp[Math.floor(at)], high = ramp[Math.floor(at) + 1];
  const mixed = low.map((c, i) => Math.round(c + (high[i] - c) * (at % 1)));
  return `rgba(${mixed}, ${(0.95 * Math.sqrt(size)).toFixed(3)})`;
}

function weigh({ bar, time, held, frame }, t, { map, size, total }) {
  const area = size[1] * size[2], [positive, negative, equal] = bar.children;
  let more = 0, less = 0, seen = 0;
  for (let n = t * area; n < (t + 1) * area; n++)
    map.weights[n] > 0 ? more += map.weights[n] : less -= map.weights[n];
  for (const n of map.seen) seen += Math.floor(n / area) === t;
  const whole = total || 1, zoom = 100 / Math.max(0.05, peakOfFrames(map, area, whole));
  positive.style.width = `${zoom * more / whole}%`;
  negative.style.left = positive.style.width;
  negative.style.width = `${zoom * less / whole}%`;
  equal.style.width = `${Math.min(100, zoom * seen / map.seen.length)}%`;
  time.textContent = when(frame);
  held.textContent = percent((more + less) / whole);
}

function peakOfFrames(map, area, whole) {
  if (!map.peak) {
    const sums = new Map();
    for (const n of map.seen) {
      const t = Math.floor(n / area), before = sums.get(t) || [0, 0];
      sums.set(t, [before[0] + Math.abs(map.weights[n]), before[1] + 1]);
    }
    map.peak = Math.max(...[...sums.values()].flatMap(([held, seen]) =>
      [held / whole, seen / map.seen.length])) * 1.05;
  }
  return map.peak;
}

const SVG = "http://www.w3.org/2000/svg";
function shape(name, attributes) {
  const found = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) found.setAttribute(key, value);
  return found;
}

// An arrow of weight -1..1 with a white outline, or a ring where it would have no length.
function arrow(start, end, weight, turned) {
  const [[x, y], [u, v]] = turned ? [end, start] : [start, end];
  const size = Math.abs(weight), paint = weight > 0 ? "#0b62c4" : "#d55e00", thick = 1 + 1.6 * size;
  const length = Math.hypot(u - x, v - y), group = shape("g", { opacity: 0.3 + 0.7 * Math.sqrt(size) });
  const dashes = weight > 0 ? {} : { "stroke-dasharray": "5 3" };
  if (length < 9) {
    for (const [stroke, wide] of [["#fff", thick + 1.6], [paint, thick]])
      group.append(shape("circle", { cx: u, cy: v, r: 7, fill: "none", stroke, "stroke-width": wide }));
    return group;
  }
  const [cos, sin] = [(u - x) / length, (v - y) / length], head = 6 + 3 * size;
  const [p, q] = [u - head * cos, v - head * sin], half = 0.42 * head;
  const tip = `${u},${v} ${p - half * sin},${q + half * cos} ${p + half * sin},${q - half * cos}`;
  for (const [stroke, wide] of [["#fff", thick + 1.6], [paint, thick]]) {
    group.append(shape("line", { x1: x, y1: y, x2: p, y2: q, stroke, "stroke-width": wide,
      ...(stroke === "#fff" ? {} : dashes) }));
    group.append(shape("polygon", { points: tip, fill: stroke, stroke,
      "stroke-width": stroke === "#fff" ? 1.6 : 0, "stroke-linejoin": "round" }));
  }
  return group;
}

const dot = ([x, y]) => shape("circle",
  { cx: x, cy: y, r: 5, fill: "#ffe119", stroke: "#000", "stroke-width": 1.5 });

// Where a place lies on a canvas, in pixels from the corner of the element that holds both.
function spot(canvas, holder, [, y, x]) {
  const box = canvas.getBoundingClientRect(), from = holder.getBoundingClientRect();
  const along = (place, length) => Math.min(Math.max((place + 0.5) / length, 0), 1);
  return [box.left - from.left + along(x, WIDTH) * box.width,
    box.top - from.top + along(y, HEIGHT) * box.height];
}

function stripLines(shown, frames, own, peak) {
  const { heaviest, map, size, grid, row, place } = shown, lines = $("lines"), far = $("far");
  const area = size[1] * size[2], start = spot(frames[own].canvas, far, place);
  const arrows = state.draw === "heat" ? [] : [...heaviest].reverse().map(n => {
    const end = spot(frames[Math.floor(n / area)].canvas, far, placeOf(n, size, grid));
    return arrow(start, end, map.weights[n] / peak, !row);
  });
  lines.replaceChildren(...arrows, dot(start));
}

// In the large view: arrows from the place if it is there, else rings where arrows end.
function stageLines(shown, cell, home, peak) {
  const { heaviest, map, size, grid, row, place } = shown, near = $("near");
  const area = size[1] * size[2], start = spot($("stage"), near, place);
  const ends = state.draw === "heat" ? [] : heaviest.filter(n => Math.floor(n / area) === cell);
  const arrows = ends.reverse().map(n => {
    const end = spot($("stage"), near, placeOf(n, size, grid));
    return arrow(home ? start : end, end, map.weights[n] / peak, !row && home);
  });
  over.replaceChildren(...arrows, ...(home ? [dot(start)] : []));
}

function tell(shown) {
  const { block, map, row, share, uniform, entropy, negative, heaviest, total, place } = shown;
  const parts = heaviest.length ? [
    `top-${state.top} hold ${percent(share)} (uniform ${percent(uniform)})`,
    `entropy ${entropy.toFixed(2)} nats, ${percent(map.seen.length > 1
      ? entropy / Math.log(map.seen.length) : 1)} of uniform`,
    row ? `differs ${percent(block.departure(map))} from the average map (all places: ${percent(
      block.dependence)})` : `receives ${(total / map.equal).toPrecision(2)} times an equal share`,
    ...(negative ? [`${percent(negative)} negative`] : []),
  ] : ["every weight of this map is zero"];
  $("figures").replaceChildren(...parts.map(part =>
    Object.assign(document.createElement("span"), { textContent: part })));
  const active = map.weights.reduce((sum, w) => sum + (w !== 0), 0);
  const notes = [
    block.awake ? "" : "This block is untrained: its output is still exactly its input.",
    block.pairwise === "concatenation" && row ? `Concatenation orders all keys alike: every place with`
      + ` at least ${state.top} active keys has the same top-${state.top}, and places differ in how`
      + ` many are active (here ${active} of ${map.seen.length}).` : "",
    block.exact ? "" : "Places are approximate: the cells are taken to divide the frame evenly.",
  ].filter(Boolean);
  $("notes").replaceChildren(...notes.map(note => Object.assign(document.createElement("p"),
    { textContent: note, className: note.includes("untrained") ? "strong" : "" })));
  $("foot").textContent = `${map.weights.length.toLocaleString("en")} weights in`
    + ` ${shown.taken.toFixed(1)} ms, from embeddings in ${block.half ? "half" : "single"} precision;`
    + ` maps differ by ${percent(block.error)} at most from exact ones. Written by nonlocalnet.`;
  const mode = block.mode === "spacetime" ? "" : `, in ${block.mode} only`;
  $("block").title = `${block.pairwise}${mode}`;
  $("count").textContent = $("top").value = state.top;
  $("frame").value = state.frame;
  $("time").textContent = when(state.frame);
  $("block").value = state.block;
  for (const id of ["row", "column", "arrows", "heat", "both"])
    $(id).setAttribute("aria-checked", id === state.view || id === state.draw);
  $("stage").setAttribute("aria-description", `x ${place[2].toFixed(0)}, y ${place[1].toFixed(0)}`);
}

let waiting = false;
function change(part) {
  Object.assign(state, part);
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; draw(); });
}

// A canvas answers the pointer: passing over looks, a click stays.
function listen(canvas, frame) {
  const place = event => {
    const box = canvas.getBoundingClientRect();
    const along = (offset, length, pixels) =>
      Math.min(Math.max(offset / length * pixels - 0.5, 0), pixels - 1);
    return [frame(), along(event.clientY - box.top, box.height, HEIGHT),
      along(event.clientX - box.left, box.width, WIDTH)];
  };
  canvas.addEventListener("pointermove", event => {
    if (event.pointerType === "mouse") change({ over: place(event) });
    else if (event.buttons) change({ at: place(event), over: null });
  });
  canvas.addEventListener("pointerleave", () => change({ over: null }));
  canvas.addEventListener("click", event => {
    const at = place(event);
    change({ at, over: null, frame: at[0] });
  });
}

function step(down, across) {
  const block = blocks[state.block];
  const [size, grid] = state.view === "row" ? [block.cells, block.grid] : [block.keys, block.keyGrid];
  const cells = state.at.map((p, axis) => nearest(p, grid[axis], size[axis]));
  const at = [state.at[0], ...[down, across].map((move, i) => centre(
    Math.min(Math.max(cells[i + 1] + move, 0), size[i + 1] - 1), grid[i + 1]))];
  change({ at, over: null, frame: frameOf(at[0]) });
}

function seek(frame, stays) {
  const to = (frame + FRAMES) % FRAMES;
  change(stays ? { frame: to } : { frame: to, at: [to, state.at[1], state.at[2]], over: null });
}

function play() {
  clearInterval(state.playing);
  const playing = state.playing ? 0 : setInterval(() => seek(state.frame + 1, true), 280);
  $("play").textContent = playing ? "❚❚" : "▶";
  $("play").setAttribute("aria-label", playing ? "stop" : "play");
  change({ playing });
}

const KEYS = {
  ArrowLeft: () => step(0, -1), ArrowRight: () => step(0, 1),
  ArrowUp: () => step(-1, 0), ArrowDown: () => step(1, 0),
  ",": () => seek(state.frame - 1), ".": () => seek(state.frame + 1), " ": play,
  b: () => change({ block: (state.block + 1) % blocks.length }),
  c: () => change({ view: state.view === "row" ? "column" : "row" }),
  h: () => change({ draw: state.draw === "heat" ? "both" : "heat" }),
  a: () => change({ draw: state.draw === "arrows" ? "both" : "arrows" }),
  "+": () => change({ top: Math.min(100, state.top + 1) }),
  "-": () => change({ top: Math.max(1, state.top - 1) }),
};
addEventListener("keydown", event => {
  const typing = event.target.closest("select, input, button, summary");
  if (event.ctrlKey || event.metaKey || event.altKey || !KEYS[event.key]) return;
  if (typing && (event.key.startsWith("Arrow") || event.key === " ")) return;
  event.preventDefault();
  KEYS[event.key]();
});

$("title").textContent = data.title;
data.scores.forEach(([name, score], i) => $("said").append(i ? ", " : "says ",
  Object.assign(document.createElement("b"), { textContent: name }), ` ${percent(score)}`));
blocks.forEach((block, i) => {
  const text = `after ${block.name} · ${block.pairwise.replaceAll("_", " ")}`;
  $("block").append(Object.assign(document.createElement("option"), { value: i, textContent: text }));
});
$("frame").max = FRAMES - 1;
$("scrub").hidden = FRAMES === 1;
const over = shape("svg", { style: "position:absolute;inset:0;width:100%;height:100%;pointer-events:none" });
$("near").style.position = "relative";
$("near").append(over);
listen($("stage"), () => state.frame);
$("block").addEventListener("change", event => change({ block: +event.target.value }));
$("top").addEventListener("input", event => change({ top: +event.target.value }));
$("frame").addEventListener("input", event => seek(+event.target.value, true));
$("play").addEventListener("click", play);
for (const view of ["row", "column"]) $(view).addEventListener("click", () => change({ view }));
for (const how of ["arrows", "heat", "both"]) $(how).addEventListener("click", () => change({ draw: how }));
addEventListener("resize", () => { small = []; change({}); });
if (parent !== window)  // a page that shows this one may want to know how much room it takes
  new ResizeObserver(() => parent.postMessage({ height: document.documentElement.offsetHeight }, "*"))
    .observe(document.body);
Promise.all(pictures.map(picture => picture.decode())).then(() => {
  draw();
  draw();  // the strip has its places now
  document.body.dataset.ready = "yes";
});
