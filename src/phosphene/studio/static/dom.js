// Two words for the document: find an element, and make one.

export const $ = (id) => document.getElementById(id);

/** Make an element: properties (`on…` listens, `aria-…`, `data-…` and `style` vars are attributes) and children. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name.includes("-") || name === "for" || name === "role") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Say a setting's or a layer's name as people would: octave_scale is "Octave scale". */
export const said = (name) => (name[0].toUpperCase() + name.slice(1)).replaceAll("_", " ");

/** Say a time: 48 s, 3 min 20 s. */
export function duration(seconds) {
  const whole = Math.ceil(seconds);
  if (whole < 60) return `${whole} s`;
  return whole < 3600 ? `${Math.floor(whole / 60)} min ${whole % 60} s` : `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}
