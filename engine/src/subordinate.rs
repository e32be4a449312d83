//! The ids that a user may map besides its own: subuid(5) and subgid(5).

use std::fs;
use std::path::Path;

/// A run of ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) first: u32,
    pub(crate) count: u32,
}

/// The ranges that `file` gives to a user, by name or by number, in the file's order. An absent
/// file gives none, as do lines that are not `owner:first:count`.
pub(crate) fn ranges(file: &Path, name: Option<&str>, uid: u32) -> Vec<Range> {
    parse(&fs::read_to_string(file).unwrap_or_default(), name, uid)
}

fn parse(text: &str, name: Option<&str>, uid: u32) -> Vec<Range> {
    let number = uid.to_string();
    let line = |line: &str| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        let first = fields.next()?.parse().ok()?;
        let count = fields.next()?.parse().ok()?;
        let is_ours = owner == number || name == Some(owner);
        (is_ours && count > 0 && fields.next().is_none()).then_some(Range { first, count })
    };
    text.lines().filter_map(line).collect()
}

/// The name of a user of this host (passwd(5)). A user of a directory service has its ranges by
/// number.
pub(crate) fn user_name(uid: u32) -> Option<String> {
    let text = fs::read_to_string("/etc/passwd").ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_by_name_and_number_are_found() {
        let text = "root:1:2\nann:100000:65536\n1000:300000:10\nann:bad:1\nann:5:0\n#x\n";
        assert_eq!(
            parse(text, Some("ann"), 1000),
            [
                Range {
                    first: 100_000,
                    count: 65_536
                },
                Range {
                    first: 300_000,
                    count: 10
                }
            ]
        );
        assert_eq!(parse(text, None, 7), []);
    }

    #[test]
    fn user_name_of_root_is_root() {
        assert_eq!(user_name(0).as_deref(), Some("root"));
    }
}
