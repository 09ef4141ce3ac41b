// the numbers of the sliders, and a word while an answer is being searched for
for (const slider of document.querySelectorAll("input[type=range]")) {
  const shown = slider.form.querySelector(`output[for=${slider.id}]`);
  slider.addEventListener("input", () => { shown.textContent = slider.value; });
}
document.querySelector("form").addEventListener("submit", () => {
  document.getElementById("state").textContent = "searching ...";
});
