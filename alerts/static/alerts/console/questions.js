// The dialogs that ask something before anything is changed.
//
// ask(dialog) → the dialog's FormData once its form is submitted, or null if it was left.

export function ask(dialog) {
  const form = dialog.querySelector("form");
  const done = new AbortController();
  const { signal } = done;
  let answer = null;
  return new Promise((resolve) => {
    const submit = (event) => {
      event.preventDefault();
      answer = new FormData(form);
      dialog.close();
    };
    form.addEventListener("submit", submit, { signal });
    dialog.querySelector("[data-cancel]").addEventListener("click", () => dialog.close(), { signal });
    const end = () => {
      done.abort();
      resolve(answer);
    };
    dialog.addEventListener("close", end, { signal });
    dialog.showModal();
  });
}
