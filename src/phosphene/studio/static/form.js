// The settings, built from their own classes: names, ranges and help come from the catalogue, none is written here.

import * as controls from "./controls.js";
import { h, said } from "./dom.js";

/**
 * Build the form. `change(name, value)` hears of what a person changes; `tools` gives what a setting needs beyond its
 * own value: `browse()`, `paint()`, `upload(file)`. Returns `fill(shown)`, which shows a recipe.
 */
export function buildForm(form, catalogue, change, tools) {
  const fields = {};
  const rowOf = (name) => {
    fields[name] = field(name, catalogue.settings[name], (value) => change(name, value), tools, catalogue);
    return fields[name].row;
  };
  for (const { name, settings, more } of catalogue.groups) {
    const folded = more.length ? h("details", {}, h("summary", {}, "More"), ...more.map(rowOf)) : "";
    form.append(h("fieldset", {}, h("legend", {}, name), ...settings.map(rowOf), folded));
  }
  fields.drive = driveField(catalogue.drive, (drive) => change("drive", drive));
  fields.step_size.row.after(fields.drive.row);
  form.addEventListener("submit", (event) => event.preventDefault());
  return (shown) => {
    for (const [name, { row, set }] of Object.entries(fields)) {
      set(name === "drive" ? Number(shown.drive.toPrecision(4)) : shown.recipe[name]);
      const changed = name in shown.given;
      if (changed && !row.classList.contains("changed")) row.closest("details")?.setAttribute("open", "");
      row.classList.toggle("changed", changed);
    }
  };
}

/** One setting as a row: its name, its help, and the control that it asks for; `set(value)` shows a value. */
export function field(name, schema, change, tools, catalogue) {
  const control = controlOf(name, schema, change, tools, catalogue);
  const id = `set-${name}`;
  const wide = control.wide ? " wide" : "";
  const title = control.wide ? h("span", { className: "name", id }, said(name)) : h("label", { for: id }, said(name));
  const help = h("span", { className: "help", id: `${id}-help` }, schema.description);
  control.element[control.wide ? "ariaLabel" : "id"] = control.wide ? said(name) : id;
  if (control.wide) control.element.setAttribute("role", "group");
  control.element.setAttribute("aria-describedby", help.id);
  return { row: h("div", { className: `field${wide}` }, title, help, control.element), set: control.set };
}

function controlOf(name, schema, change, tools, catalogue) {
  if (name === "layers") return controls.terms(change, "layer", tools.browse);
  if (schema.type === "array") return controls.terms(change, said(name).toLowerCase());
  if (name === "mask") return controls.attached(change, tools.upload, tools.paint);
  if (name === "guide") return controls.attached(change, tools.upload);
  if (name === "model") return controls.suggestion(change, catalogue.models.map((model) => model.name), "models");
  if (name === "weights") return controls.suggestion(change, ["pretrained", "untrained"], "weights");
  if (schema.type === "boolean") return controls.toggle(change);
  if (schema.enum) return controls.choice(change, schema.enum);
  if (schema.type === "string") return controls.word(change);
  if (schema.anyOf) return controls.wordOrNumber(change, schema.default);
  return controls.number(change, schema);
}

function driveField(about, change) {
  const control = controls.number(change, { type: "number", exclusiveMinimum: 0 });
  control.element.id = "set-drive";
  const row = h("div", { className: "field" }, h("label", { for: "set-drive" }, "Drive"), h("span", { className: "help" }, about), control.element);
  return { row, set: control.set };
}
