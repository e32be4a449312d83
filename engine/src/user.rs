//! The user of a container, by the image's own `/etc/passwd` and `/etc/group`: no library of the
//! host or of the image decides who somebody is. What looks like a number is that number, never a
//! name (CVE-2024-40635).

use std::path::Path;

use image::LayeredRoot;

use crate::{EngineError, UserNamespace};

/// No database is longer: a hostile image must not cost memory (CVE-2026-47262).
const MAX_DATABASE: u64 = 1 << 20;

/// The last id; 4294967295 means "no change" to the kernel.
const MAX_ID: u32 = u32::MAX - 1;

/// Who the program runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

impl User {
    /// Checks that the kernel can be asked for this user.
    pub(crate) fn require_mapped(&self, ids: UserNamespace) -> Result<(), EngineError> {
        let groups = std::iter::once(&self.gid).chain(&self.groups);
        let unmapped = |kind, id, mapped| EngineError::Unmapped { kind, id, mapped };
        if self.uid >= ids.uids {
            return Err(unmapped("user", self.uid, ids.uids));
        }
        match groups.copied().find(|group| *group >= ids.gids) {
            Some(group) => Err(unmapped("group", group, ids.gids)),
            None => Ok(()),
        }
    }
}

/// Resolves `user[:group]`; the empty string is root.
pub(crate) fn resolve(text: &str, root: &LayeredRoot) -> Result<User, EngineError> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let passwd = read(root, "/etc/passwd");
    let entries = passwd.lines().filter_map(PasswdEntry::parse);
    let found = match number(user)? {
        Some(uid) => entries
            .clone()
            .find(|entry| entry.uid == uid)
            .unwrap_or(PasswdEntry {
                name: "",
                uid,
                gid: 0,
                home: "/",
            }),
        None => entries
            .clone()
            .find(|entry| entry.name == user)
            .ok_or_else(|| EngineError::NoSuchUser(user.to_owned()))?,
    };
    let database = read(root, "/etc/group");
    let gid = match group {
        None | Some("") => found.gid,
        Some(group) => match number(group)? {
            Some(gid) => gid,
            None => group_by_name(&database, group)
                .ok_or_else(|| EngineError::NoSuchGroup(group.to_owned()))?,
        },
    };
    // A group that was asked for by name stands alone, as with Docker.
    let groups = if group.is_some() || found.name.is_empty() {
        Vec::new()
    } else {
        supplementary(&database, found.name, gid)
    };
    Ok(User {
        uid: found.uid,
        gid,
        groups,
        home: found.home.to_owned(),
    })
}

/// Adds the groups of `--group-add`, by name or number.
pub(crate) fn add_groups(
    user: &mut User,
    names: &[String],
    root: &LayeredRoot,
) -> Result<(), EngineError> {
    if names.is_empty() {
        return Ok(());
    }
    let database = read(root, "/etc/group");
    for name in names {
        let gid = match number(name)? {
            Some(gid) => gid,
            None => group_by_name(&database, name)
                .ok_or_else(|| EngineError::NoSuchGroup(name.clone()))?,
        };
        if !user.groups.contains(&gid) {
            user.groups.push(gid);
        }
    }
    Ok(())
}

/// Absent and unreadable databases are empty.
fn read(root: &LayeredRoot, path: &str) -> String {
    let bytes = root
        .read_bounded(Path::new(path), MAX_DATABASE)
        .unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A number if it looks like one.
fn number(text: &str) -> Result<Option<u32>, EngineError> {
    if !text.starts_with(|c: char| c.is_ascii_digit() || c == '+' || c == '-' || c == ' ') {
        return Ok(None);
    }
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let id = text
        .parse::<u32>()
        .ok()
        .filter(|id| digits && *id <= MAX_ID);
    id.map(Some)
        .ok_or_else(|| EngineError::BadId(text.to_owned()))
}

/// A line of `/etc/passwd` (passwd(5)).
#[derive(Debug, Clone, Copy)]
struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl<'a> PasswdEntry<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let home = fields.nth(1).filter(|home| !home.is_empty()).unwrap_or("/");
        Some(Self {
            name,
            uid,
            gid,
            home,
        })
    }
}

/// Lines of `/etc/group` (group(5)): name, id, members.
fn groups(database: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    database.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some((name, gid, fields.next().unwrap_or_default()))
    })
}

fn group_by_name(database: &str, wanted: &str) -> Option<u32> {
    groups(database)
        .find(|(name, ..)| *name == wanted)
        .map(|(_, gid, _)| gid)
}

fn supplementary(database: &str, user: &str, primary: u32) -> Vec<u32> {
    let mut found: Vec<u32> = groups(database)
        .filter(|(_, gid, members)| *gid != primary && members.split(',').any(|m| m == user))
        .map(|(_, gid, _)| gid)
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> (tempfile::TempDir, LayeredRoot) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        let file = |name: &str, text: &str| {
            sys::durable::replace_file(
                &dir.path().join("etc").join(name),
                text.as_bytes(),
                sys::durable::Durability::Atomic,
            )
            .unwrap();
        };
        file(
            "passwd",
            "root:x:0:0::/root:/bin/sh\nme:x:1000:100::/home/me:/bin/sh\n4294967296:x:0:0::/:/x\n1234:x:0:0::/:/x\n",
        );
        file("group", "users:x:100:\naudio:x:29:me,you\n");
        let root = LayeredRoot::new(vec![dir.path().to_path_buf()]);
        (dir, root)
    }

    #[test]
    fn name_takes_ids_home_and_groups_of_the_image() {
        let (_dir, root) = root();
        let user = resolve("me", &root).unwrap();
        assert_eq!(
            (user.uid, user.gid, user.home.as_str()),
            (1000, 100, "/home/me")
        );
        assert_eq!(user.groups, [29]);
        assert_eq!(resolve("me:audio", &root).unwrap().gid, 29);
    }

    #[test]
    fn number_is_never_looked_up_as_a_name() {
        let (_dir, root) = root();
        assert_eq!(resolve("1234", &root).unwrap().uid, 1234);
        for text in [
            "4294967296",
            "4294967295",
            " 0",
            "+0",
            "0x0",
            "-1",
            "1000:4294967296",
        ] {
            assert!(
                matches!(resolve(text, &root), Err(EngineError::BadId(_))),
                "{text}"
            );
        }
    }

    #[test]
    fn unknown_name_is_an_error() {
        let (_dir, root) = root();
        assert!(matches!(
            resolve("nobody-here", &root),
            Err(EngineError::NoSuchUser(_))
        ));
        assert!(matches!(
            resolve("0:nogroup", &root),
            Err(EngineError::NoSuchGroup(_))
        ));
    }
}
