// Shows a packet's details below the diagram while the packet is pointed at or focused. Everything it shows stands in
// the page already, where the packet's link leads without this script.
(() => {
  const panel = document.getElementById("panel");
  if (!panel) return;
  let kept = null;
  const show = (link) => {
    const detail = document.getElementById(link.getAttribute("href").slice(1));
    if (!detail) return;
    const copy = detail.cloneNode(true);
    copy.removeAttribute("id");
    copy.open = true;
    panel.replaceChildren(copy);
    panel.hidden = false;
  };
  const hide = () => { kept = null; panel.hidden = true; };
  for (const link of document.querySelectorAll("svg a.packet")) {
    link.addEventListener("mouseenter", () => show(link));
    link.addEventListener("focus", () => show(link));
    link.addEventListener("mouseleave", () => (kept ? show(kept) : hide()));
    link.addEventListener("click", (event) => { event.preventDefault(); kept = link; show(link); });
  }
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
  document.addEventListener("focusin", (event) => {
    if (!event.target.closest("svg a.packet, #panel")) hide();
  });
})();
// A link to details opens them, and what they stand in, in browsers that would not.
(() => {
  const open = () => {
    for (let there = document.querySelector(":target"); there; there = there.parentElement) {
      if ("open" in there) there.open = true;
    }
  };
  addEventListener("hashchange", open);
  addEventListener("load", open);  // there is no :target before
})();
