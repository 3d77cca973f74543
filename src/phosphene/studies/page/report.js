const captions = JSON.parse(document.getElementById("captions").textContent);
const buttons = [...document.querySelectorAll("button.picture")];
const viewer = document.getElementById("viewer");
const before = document.getElementById("photograph").src;
let shown = 0;
let zoom = 1;

function cutWith(slider, compare) {
  const cut = () => compare.style.setProperty("--cut", `${slider.value}%`);
  slider.addEventListener("input", cut);
  cut();
}

function put(compare, button) {
  const after = compare.querySelector(".after");
  after.src = button.querySelector("img").src;
  after.alt = button.querySelector("img").alt;
}

function fit() {
  const stage = viewer.querySelector(".stage");
  const image = viewer.querySelector(".before");
  const width = Math.min(stage.clientWidth, (stage.clientHeight * image.naturalWidth) / image.naturalHeight);
  stage.style.setProperty("--fit", `${width}px`);
  stage.style.setProperty("--zoom", zoom);
  stage.toggleAttribute("data-zoomed", zoom > 1);
  viewer.querySelector(".zoom").textContent = `${zoom}×`;
}

function show(index) {
  shown = (index + buttons.length) % buttons.length;
  const caption = captions[buttons[shown].dataset.key];
  put(viewer.querySelector(".compare"), buttons[shown]);
  viewer.querySelector(".which").textContent = caption.label;
  viewer.querySelector("pre").textContent = caption.command;
  fit();
}

for (const [index, button] of buttons.entries()) {
  button.addEventListener("click", () => {
    zoom = 1;
    viewer.showModal();
    show(index);
  });
}
viewer.querySelector(".before").src = before;
viewer.querySelector(".before").addEventListener("load", fit);
viewer.querySelector(".close").addEventListener("click", () => viewer.close());
viewer.querySelector(".zoom").addEventListener("click", () => {
  zoom = zoom === 4 ? 1 : zoom * 2;
  fit();
});
for (const button of viewer.querySelectorAll("[data-go]")) {
  button.addEventListener("click", () => show(shown + Number(button.dataset.go)));
}
viewer.addEventListener("keydown", (event) => {
  if (event.target.matches("input")) return;
  if (event.key === "ArrowLeft") show(shown - 1);
  if (event.key === "ArrowRight") show(shown + 1);
});
window.addEventListener("resize", fit);
cutWith(viewer.querySelector(".cut"), viewer.querySelector(".compare"));

const hero = document.getElementById("hero");
cutWith(document.querySelector("#before-and-after .cut"), hero);
if (hero.dataset.key) {
  put(hero, buttons.find((button) => button.dataset.key === hero.dataset.key));
  document.querySelector("#before-and-after .which").textContent = captions[hero.dataset.key].label;
} else {
  document.getElementById("before-and-after").hidden = true;
}
