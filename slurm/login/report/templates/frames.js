// One lattice at a time instead of all at once; without this script they stand side by side.
for (const section of document.querySelectorAll("section.film")) {
  const frames = [...section.querySelectorAll(".frames li")];
  const player = section.querySelector(".player");
  if (frames.length < 2) continue;
  const picture = player.querySelector("img"), slider = player.querySelector("input");
  const words = player.querySelector("output"), play = player.querySelector(".play"), all = player.querySelector(".toggle");
  let timer = 0;
  const show = (number) => {
    const image = frames[number].querySelector("img");
    picture.src = image.src;
    picture.alt = image.alt;
    slider.value = number;
    const step = frames[number].querySelector("span").textContent;
    words.textContent = `${step}, ${number + 1} of ${frames.length}`;
    slider.setAttribute("aria-valuetext", step);
  };
  const stop = () => {
    clearInterval(timer);
    timer = 0;
    play.textContent = "Play";
  };
  slider.max = frames.length - 1;
  slider.addEventListener("input", () => { stop(); show(Number(slider.value)); });
  play.addEventListener("click", () => {
    if (timer) return stop();
    if (Number(slider.value) === frames.length - 1) show(0);
    play.textContent = "Pause";
    timer = setInterval(() => {
      const next = Number(slider.value) + 1;
      if (next < frames.length) show(next);
      if (next >= frames.length - 1) stop();
    }, 200);
  });
  all.addEventListener("click", () => {
    const shown = section.classList.toggle("all");
    all.setAttribute("aria-pressed", shown);
  });
  section.classList.add("js");
  show(frames.length - 1);
}
