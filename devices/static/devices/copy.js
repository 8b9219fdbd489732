// Buttons with data-copy="ID" copy the text of that element.
for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", async () => {
    const source = document.getElementById(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(source.textContent);
      button.textContent = "Copied";
    } catch {
      // Without https there is no clipboard: select the text, so that one keystroke copies it.
      getSelection().selectAllChildren(source);
    }
  });
}
