// A button with data-copy="ID" copies the text of that element.

async function copy(button) {
  const source = document.getElementById(button.dataset.copy);
  const label = button.lastChild; // after the icon
  try {
    await navigator.clipboard.writeText(source.textContent);
    label.textContent = "Copied";
  } catch {
    // Without HTTPS there is no clipboard: select the text, so that the user can copy it with the keyboard.
    window.getSelection().selectAllChildren(source);
    label.textContent = "Selected: press Ctrl+C";
  }
}

for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", () => copy(button));
}
