//! Rules about what FROM names.

use std::collections::{BTreeMap, BTreeSet};

use image::{Platform, Reference};

use super::text::Linter;
use crate::dockerfile::{Arg, Dockerfile, Kind, expand};
use crate::scope;

/// The values of ARG before the first FROM, without what a user gives.
pub(super) fn defaults(file: &Dockerfile) -> BTreeMap<String, String> {
    let mut values = scope::automatic(&Platform::host(), None);
    for instruction in &file.instructions {
        match &instruction.kind {
            Kind::From(_) => break,
            Kind::Arg(args) => {
                for Arg { name, default } in args {
                    let lookup = |name: &str| values.get(name).cloned();
                    let text = default.as_deref().unwrap_or_default();
                    let value = expand::word(text, file.escape, &lookup);
                    // What cannot be expanded fails the build, which says so better.
                    if let (Ok(value), true) = (value, default.is_some()) {
                        values.insert(name.clone(), value.joined());
                    }
                }
            }
            _ => {}
        }
    }
    values
}

/// The names that an ARG before the first FROM declares.
fn declared(file: &Dockerfile) -> BTreeSet<&str> {
    let before = file
        .instructions
        .iter()
        .take_while(|one| !matches!(one.kind, Kind::From(_)));
    before
        .filter_map(|one| match &one.kind {
            Kind::Arg(args) => Some(args.iter().map(|arg| arg.name.as_str())),
            _ => None,
        })
        .flatten()
        .collect()
}

/// Variables of FROM must be declared, and their defaults must name an image.
pub(super) fn lint(linter: &mut Linter<'_>) {
    let file = linter.file;
    let (values, declared) = (defaults(file), declared(file));
    let lookup = |name: &str| values.get(name).cloned();
    for instruction in &file.instructions {
        let Kind::From(from) = &instruction.kind else {
            continue;
        };
        for text in [Some(&from.image), from.platform.as_ref()]
            .into_iter()
            .flatten()
        {
            let Ok(expanded) = expand::word(text, file.escape, &lookup) else {
                continue;
            };
            let unknown = |name: &&String| !declared.contains(name.as_str());
            for name in expanded.unset.iter().filter(unknown) {
                let text = format!("no ARG before the first FROM declares `{name}`");
                linter.find("UndefinedArgInFrom", instruction, &format!("${name}"), text);
            }
        }
        let Ok(image) = expand::word(&from.image, file.escape, &lookup) else {
            continue;
        };
        let used: Vec<_> = image
            .used
            .iter()
            .filter(|name| declared.contains(name.as_str()))
            .cloned()
            .collect();
        let image = image.joined();
        if !used.is_empty() && Reference::parse(&image).is_err() {
            let text = format!(
                "with the default of `{}` it names no image: `{image}`",
                used.join("`, `")
            );
            linter.find("InvalidDefaultArgInFrom", instruction, &from.image, text);
        }
    }
}
