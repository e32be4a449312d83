//! What `ketch image`, `ketch container`, `ketch system` and `ketch manifest` show: the commands of a
//! group, whether they are spelled only there or also without the group.

use super::{COMMANDS, GROUPED, group_help};

/// The groups whose commands are handled one by one.
const GROUPS: [&str; 4] = ["image", "container", "system", "manifest"];

/// What is spelled with its group only.
const OWN: [(&str, &str, &str); 21] = [
    ("container", "prune", "Remove containers that do not run"),
    ("image", "convert", "Compress the layers in another way"),
    ("image", "diff", "Show the files that two images differ in"),
    ("image", "mount", "Mount an image to look at it"),
    ("image", "prune", "Remove images without a name"),
    ("image", "push", "Send an image to a registry"),
    (
        "image",
        "referrers",
        "List what refers to an image in its registry",
    ),
    ("image", "tags", "List the tags of a repository"),
    ("image", "unmount", "End a mount"),
    ("image", "wrap", "Make a wasm artifact of a module"),
    (
        "manifest",
        "annotate",
        "Change what an index says about an image",
    ),
    ("manifest", "create", "Make an index of images"),
    ("manifest", "inspect", "Show an index or a manifest"),
    ("manifest", "push", "Send an index to a registry"),
    ("manifest", "rm", "Remove indexes"),
    (
        "system",
        "check",
        "Find, and repair, what is damaged or belongs to nobody",
    ),
    ("system", "df", "Show what takes room"),
    (
        "system",
        "dial-stdio",
        "Pass standard input and output on to the daemon",
    ),
    (
        "system",
        "install-units",
        "Write systemd's units: `system start` after a boot, and the daemon with its socket",
    ),
    ("system", "prune", "Remove what nothing uses"),
    (
        "system",
        "start",
        "Start what a restart policy brings back after a boot",
    ),
];

/// Second spellings, which the help leaves out.
const ALIASES: [&str; 3] = ["list", "remove", "ps"];

/// Prints the help of a group when the words ask for it, or for nothing; `None` when they do not.
pub(super) fn help(group: &str, rest: &[&str]) -> Option<anyhow::Result<u8>> {
    let asks = matches!(rest.first(), None | Some(&("--help" | "-h" | "help")));
    if !asks || !GROUPS.contains(&group) {
        return None;
    }
    let own = OWN
        .iter()
        .filter(|(name, ..)| *name == group)
        .map(|(_, verb, about)| (*verb, *about));
    let plain = GROUPED
        .iter()
        .filter(|(name, verb, _)| *name == group && !ALIASES.contains(verb))
        .filter_map(|(_, verb, plain)| {
            let command = plain.rsplit(' ').next()?;
            let about = COMMANDS.iter().find(|(name, _)| *name == command)?.1;
            Some((*verb, about))
        });
    let mut commands: Vec<(&str, &str)> = own.chain(plain).collect();
    commands.sort_unstable();
    commands.dedup_by_key(|(verb, _)| *verb);
    Some(group_help(group, &commands))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_of_a_group_has_a_line() {
        for (group, verb, plain) in GROUPED {
            let is_own = OWN.iter().any(|(g, v, _)| (*g, *v) == (group, verb));
            let command = plain.rsplit(' ').next().unwrap();
            let is_plain = COMMANDS.iter().any(|(name, _)| *name == command);
            assert!(is_own || is_plain, "{group} {verb}");
        }
    }
}
