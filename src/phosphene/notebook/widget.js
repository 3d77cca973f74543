// Draws what `widget.py` shares: two pictures with a seam between them, a button, settings, and what is said.

function make(tag, attributes = {}, ...children) {
  const made = Object.assign(document.createElement(tag), attributes);
  made.append(...children);
  return made;
}

function showing(model, name, alt) {
  const image = make("img", { alt, draggable: false });
  const draw = () => {
    const old = image.src;
    image.src = URL.createObjectURL(new Blob([model.get(name)], { type: "image/jpeg" }));
    if (old) URL.revokeObjectURL(old);
  };
  model.on(`change:${name}`, draw);
  draw();
  return image;
}

function shared(model, name, input, read, show = () => {}) {
  const draw = () => { input.value = model.get(name); show(model.get(name)); };
  input.addEventListener("input", () => show(read(input.value)));
  input.addEventListener("change", () => {
    if (!input.checkValidity() || input.value === "") return draw();
    model.set(name, read(input.value));
    model.save_changes();
  });
  model.on(`change:${name}`, draw);
  draw();
  return input;
}

function pictures(model) {
  const dream = showing(model, "picture", "the dream");
  const line = make("div", { className: "seam" });
  const seam = make("input", { type: "range", min: 0, max: 100, step: 0.5, value: 0, ariaLabel: "seam" });
  const box = make("div", { className: "pictures" }, showing(model, "photograph", "the photograph"), dream, line);
  const draw = () => {
    dream.style.clipPath = `inset(0 0 0 ${seam.value}%)`;
    line.style.left = `${seam.value}%`;
    line.hidden = Number(seam.value) === 0;
  };
  const move = (event) => {
    if (!(event.buttons & 1)) return;
    const { left, width } = box.getBoundingClientRect();
    seam.value = (100 * (event.clientX - left)) / width;
    draw();
  };
  box.addEventListener("pointerdown", (event) => { box.setPointerCapture(event.pointerId); move(event); });
  box.addEventListener("pointermove", move);
  seam.addEventListener("input", draw);
  draw();
  return [box, make("label", { className: "before" }, "photograph ", seam, " dream")];
}

function controls(model) {
  const button = make("button", { type: "button" });
  const label = () => { button.textContent = model.get("running") ? "Stop" : "Dream again"; };
  button.addEventListener("click", () => model.send(model.get("running") ? "stop" : "start"));
  model.on("change:running", label);
  label();
  const strength = make("output");
  const size = make("input", { type: "range", min: 0.001, max: 0.05, step: 0.001 });
  shared(model, "step_size", size, Number, (value) => { strength.textContent = value.toFixed(3); });
  const look = make("select", {}, ...model.get("looks").map((name) => make("option", { value: name }, name)));
  const count = (name, max) => shared(model, name, make("input", { type: "number", min: 1, max, step: 1 }), Number);
  return make(
    "div",
    { className: "controls" },
    button,
    ...(model.get("looks").length ? [make("label", {}, "look ", shared(model, "look", look, String))] : []),
    make("label", {}, "step size ", size, strength),
    make("label", {}, "steps ", count("steps", 1000)),
    make("label", {}, "octaves ", count("octaves", 30)),
  );
}

function render({ model, el }) {
  const said = make("div");
  said.setAttribute("role", "status");
  const say = () => { said.textContent = model.get("said"); };
  model.on("change:said", say);
  say();
  el.append(make("div", { className: "phosphene" }, ...pictures(model), controls(model), said));
}

export default { render };
