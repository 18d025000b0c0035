// Replaces what is shown by what the daemon says now, and says so when it does not answer.
"use strict";
const stale = document.getElementById("stale");
let asOf = new Date(), asking = false;

function tell(why) {
  stale.textContent = `${why} This is how it stood at ${asOf.toLocaleTimeString()}.`;
  stale.hidden = false;
}

async function refresh() {
  if (asking || document.hidden) return;
  if (!getSelection().isCollapsed) return tell("Not refreshed while text is selected.");
  asking = true;
  try {
    const answer = await fetch(location.pathname, { cache: "no-store", signal: AbortSignal.timeout(10000) });
    if (!answer.ok) throw new Error((await answer.text()).trim());
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const shown of document.querySelectorAll("details")) {
      const same = fresh.getElementById(shown.id);
      if (same) same.open = shown.open;
    }
    document.title = fresh.title;
    document.querySelector("main").replaceWith(fresh.querySelector("main"));
    asOf = new Date();
    stale.hidden = true;
  } catch (error) {
    tell(`The daemon does not answer (${error.message}).`);
  }
  asking = false;
}

setInterval(refresh, 5000);
document.addEventListener("visibilitychange", refresh);
