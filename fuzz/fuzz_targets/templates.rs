#![no_main]
//! A template is read and filled in, or refused with a place that is in it. The command line is no
//! library: its module is included as it is, and `cli/src/template/tests.rs` changes templates at
//! random on stable.

#[path = "../../cli/src/template/mod.rs"]
mod template;

use template::Template;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let record = serde_json::json!({
        "Id": "x", "State": { "Pid": 7, "Running": true, "Health": null },
        "Env": ["A=b", "C"], "Labels": { "k": "v" }, "Mounts": [{ "Type": "bind" }],
    });
    match Template::parse(text) {
        Ok(template) => drop(template.render(&record)),
        Err(error) => {
            assert!(error.line <= text.matches('\n').count() + 1);
            assert!(error.column <= text.chars().count() + 1);
        }
    }
});
