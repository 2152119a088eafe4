// Buttons below a recording of a terminal. It is an SVG that plays once when it is loaded, and shows its
// last moment when its address ends with #end.
(() => {
  let played = 0;
  for (const picture of document.querySelectorAll(".recording img")) {
    const file = picture.getAttribute("src");
    const controls = document.createElement("div");
    controls.className = "recording-controls";
    const button = (text, address) => {
      const made = document.createElement("button");
      made.type = "button";
      made.textContent = text;
      made.addEventListener("click", () => { picture.src = address(); });
      controls.append(made);
    };
    picture.src = `${file}#end`;
    button("Play", () => `${file}?${++played}`);
    button("Show the end", () => `${file}?${++played}#end`);
    picture.after(controls);
  }
})();
