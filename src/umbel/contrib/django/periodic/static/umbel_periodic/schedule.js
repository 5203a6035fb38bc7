"use strict";
{
    // Of the fields of a schedule only those of the chosen kind are shown, and those that have an error.
    const fields = {interval: "every", crontab: "crontab", clocked: "clocked_at"};

    document.addEventListener("DOMContentLoaded", () => {
        const kind = document.getElementById("id_kind");
        if (kind === null) {
            return;  // somebody who may only look
        }
        const show = () => {
            for (const [name, field] of Object.entries(fields)) {
                const row = document.querySelector(`.form-row.field-${field}`);
                row.classList.toggle("hidden", name !== kind.value && row.querySelector(".errorlist") === null);
            }
        };
        kind.addEventListener("change", show);
        show();
    });
}
