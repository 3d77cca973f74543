import { $, h } from "./dom.js";
export async function showCompare() { $("compare-view").replaceChildren(h("h2", {}, "Compare")); }
