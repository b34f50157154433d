// Elements, made by hand. Whatever comes from others enters as text, never as markup.

// make("p", {class: "note"}, "text", child…). Attributes that are null, undefined or false are left out.
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((c) => c !== null && c !== undefined));
  return element;
}

export function byId(id) {
  return document.getElementById(id);
}

// Writes text only where it differs, so that screen readers and animations are not woken for nothing.
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const still = matchMedia("(prefers-reduced-motion: reduce)");

// A short animation that leaves nothing behind; none for those who do not want any.
export function animate(element, frames, duration) {
  if (!still.matches) element.animate(frames, { duration, easing: "ease-out" });
}

// Counts from what is shown to a number within half a second.
export function roll(element, to, format) {
  const from = Number(element.dataset.value ?? to);
  element.dataset.value = String(to);
  if (from === to || still.matches || document.hidden) {
    say(element, format(to));
    return;
  }
  const began = performance.now();
  const step = (now) => {
    if (element.dataset.value !== String(to)) return; // a newer number rolls
    const part = Math.min(1, (now - began) / 500);
    const eased = 1 - (1 - part) ** 3;
    say(element, format(Math.round(from + (to - from) * eased)));
    if (part < 1) requestAnimationFrame(step);
  };
  requestAnimationFrame(step);
}
