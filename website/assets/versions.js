// A selector of versions in the header, from the list that ../versions.js sets. It leads to the same page
// of the other version, or to its first page. Nothing is fetched, so it works on pages opened as files.
(() => {
  const versions = window.lifeguardVersions ?? [];
  const current = document.querySelector("meta[name=lifeguard-version]").content;
  const base = new URL(JSON.parse(document.getElementById("__config").textContent).base + "/", location);
  const page = location.pathname.slice(base.pathname.length) || "index.html";
  const address = version =>
    new URL(`../${version.name}/${version.pages.includes(page) ? page : "index.html"}`, base);
  if (!versions.some(version => version.name === current)) return;

  const selector = document.createElement("select");
  selector.className = "lg-versions";
  selector.ariaLabel = "Version of the documentation";
  for (const { name } of versions) {
    selector.add(new Option(name, name, name === current, name === current));
  }
  selector.addEventListener("change", () => {
    location.assign(address(versions[selector.selectedIndex]));
  });
  document.querySelector(".md-header__title").after(selector);

  const newest = versions[0];
  if (newest.name === current) return;
  const note = document.createElement("p");
  note.className = "lg-outdated";
  note.append(current === "dev" ? "This is not released yet. " : `This is version ${current}. `);
  const link = document.createElement("a");
  link.href = address(newest);
  link.textContent = `Read version ${newest.name}, the newest release`;
  note.append(link, ".");
  document.querySelector(".md-container").prepend(note);
})();
