//! `RUN --mount`.

/// A mount of a RUN instruction, as it is written: variables stand in its paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunMount {
    /// Where it appears.
    pub target: Option<String>,
    /// What it is, as far as it does not hang on variables.
    pub kind: MountKind,
    /// Its options, when variables stand in them: what it is turns out when they are replaced.
    pub unresolved: Option<String>,
}

/// How several builds share a cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sharing {
    /// All write at once.
    #[default]
    Shared,
    /// Each that runs at the same time has one of its own.
    Private,
    /// One waits for the other.
    Locked,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountKind {
    /// Files of the context, of a stage or of an image.
    Bind {
        /// Where from: the context when absent.
        from: Option<String>,
        /// The path in it.
        source: String,
        /// What is written is thrown away afterwards, instead of being refused.
        writable: bool,
    },
    /// A directory that stays from build to build.
    Cache {
        /// Its name; the target when absent.
        id: Option<String>,
        /// What it is filled with when it is made.
        from: Option<String>,
        /// The path in it.
        source: String,
        /// Nothing can be written.
        readonly: bool,
        /// How it is shared.
        sharing: Sharing,
        /// Mode of a new one.
        mode: u32,
        /// Owner of a new one.
        uid: u32,
        /// Group of a new one.
        gid: u32,
    },
    /// Memory.
    Tmpfs {
        /// Bytes.
        size: Option<u64>,
    },
    /// A secret.
    Secret {
        /// Its name.
        id: Option<String>,
        /// The variable that holds it.
        env: Option<String>,
        /// The build fails without it.
        required: bool,
        /// Mode of the file.
        mode: u32,
        /// Owner of the file.
        uid: u32,
        /// Group of the file.
        gid: u32,
    },
    /// An agent with SSH keys.
    Ssh {
        /// Its name.
        id: Option<String>,
        /// The build fails without it.
        required: bool,
        /// Mode of the socket.
        mode: u32,
        /// Owner of the socket.
        uid: u32,
        /// Group of the socket.
        gid: u32,
    },
}

/// The options as they were read.
#[derive(Default)]
struct Options {
    kind: Option<String>,
    /// A variable says what it is.
    open_type: bool,
    target: Option<String>,
    source: Option<String>,
    from: Option<String>,
    id: Option<String>,
    env: Option<String>,
    writable: Option<bool>,
    required: Option<bool>,
    sharing: Option<Sharing>,
    size: Option<u64>,
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
}

/// Replaces variables in the value of an option.
type Replace<'a> = &'a dyn Fn(&str) -> Result<String, String>;

impl RunMount {
    /// The mount with its variables replaced.
    pub(crate) fn resolved(&self, replace: Replace<'_>) -> Result<Self, String> {
        match &self.unresolved {
            Some(text) => parse_with(text, Some(replace)),
            None => Ok(self.clone()),
        }
    }
}

/// Parses the value of `--mount`.
pub(super) fn parse(text: &str) -> Result<RunMount, String> {
    parse_with(text, None)
}

fn parse_with(text: &str, replace: Option<Replace<'_>>) -> Result<RunMount, String> {
    let mut options = Options::default();
    let mut given: Vec<&str> = Vec::new();
    for field in text.split(',') {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.trim(), Some(value)),
            None => (field.trim(), None),
        };
        let replaced = match (value, replace) {
            // Where files come from is known before anything is carried out.
            (Some(value), Some(replace)) if !key.eq_ignore_ascii_case("from") => {
                Some(replace(value)?)
            }
            _ => None,
        };
        let value = replaced.as_deref().or(value);
        let key = match key.to_ascii_lowercase().as_str() {
            "type" => "type",
            "target" | "dst" | "destination" => "target",
            "source" | "src" => "source",
            "from" => "from",
            "id" => "id",
            "env" => "env",
            "rw" | "readwrite" => "rw",
            "ro" | "readonly" => "ro",
            "required" => "required",
            "sharing" => "sharing",
            "size" => "size",
            "mode" => "mode",
            "uid" => "uid",
            "gid" => "gid",
            _ => return Err(format!("`{field}` is no option of a mount")),
        };
        given.push(key);
        let is_open = replace.is_none() && value.is_some_and(|value| value.contains('$'));
        match (is_open, key) {
            // What it is, it may be a file or a number, only its value tells.
            (true, "type") => options.open_type = true,
            (true, "rw" | "ro" | "required" | "uid" | "gid" | "mode" | "size" | "sharing") => {}
            _ => options.set(key, value)?,
        }
    }
    let is_open = replace.is_none() && text.contains('$');
    let unresolved = is_open.then(|| text.to_owned());
    if options.open_type {
        return Ok(RunMount {
            target: options.target,
            kind: MountKind::Bind {
                source: options.source.unwrap_or_default(),
                from: options.from,
                writable: false,
            },
            unresolved,
        });
    }
    let (mount, allowed) = options.build(unresolved)?;
    if let Some(other) = given
        .iter()
        .find(|key| **key != "type" && !allowed.contains(*key))
    {
        let kind = mount.kind.name();
        return Err(format!("a {kind} mount has no option `{other}`"));
    }
    Ok(mount)
}

impl Options {
    fn set(&mut self, key: &str, value: Option<&str>) -> Result<(), String> {
        let need = || {
            value
                .filter(|value| !value.is_empty())
                .ok_or_else(|| format!("the option `{key}` needs a value"))
        };
        let flag = || match value {
            None | Some("true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(other) => Err(format!("`{key}={other}` is neither true nor false")),
        };
        let number = || {
            let value = need()?;
            value
                .parse::<u32>()
                .map_err(|_| format!("`{key}={value}` is no number"))
        };
        match key {
            "type" => self.kind = Some(need()?.to_ascii_lowercase()),
            "target" => self.target = Some(need()?.to_owned()),
            "source" => self.source = Some(need()?.to_owned()),
            "from" => self.from = Some(need()?.to_owned()),
            "id" => self.id = Some(need()?.to_owned()),
            "env" => self.env = Some(need()?.to_owned()),
            "rw" => self.writable = Some(flag()?),
            "ro" => self.writable = Some(!flag()?),
            "required" => self.required = Some(flag()?),
            "uid" => self.uid = Some(number()?),
            "gid" => self.gid = Some(number()?),
            "mode" => {
                let value = need()?;
                let mode = u32::from_str_radix(value, 8)
                    .ok()
                    .filter(|mode| *mode <= 0o7777);
                self.mode = Some(mode.ok_or_else(|| format!("`mode={value}` is no mode"))?);
            }
            "size" => {
                let value = need()?;
                self.size = Some(bytes(value).ok_or_else(|| format!("`size={value}` is no size"))?);
            }
            _ => {
                self.sharing = Some(match need()? {
                    "shared" => Sharing::Shared,
                    "private" => Sharing::Private,
                    "locked" => Sharing::Locked,
                    other => {
                        return Err(format!(
                            "`sharing={other}` is none of shared, private, locked"
                        ));
                    }
                });
            }
        }
        Ok(())
    }

    fn build(
        self,
        unresolved: Option<String>,
    ) -> Result<(RunMount, &'static [&'static str]), String> {
        let kind = self.kind.as_deref().unwrap_or("bind");
        let need_target = || match &self.target {
            Some(_) => Ok(()),
            None => Err(format!("a {kind} mount needs a target")),
        };
        let source = self.source.clone().unwrap_or_else(|| "/".to_owned());
        let (uid, gid) = (self.uid.unwrap_or(0), self.gid.unwrap_or(0));
        let (mount, allowed): (_, &[&str]) = match kind {
            "bind" => {
                need_target()?;
                let mount = MountKind::Bind {
                    source,
                    from: self.from,
                    writable: self.writable.unwrap_or(false),
                };
                (mount, &["target", "source", "from", "rw", "ro"])
            }
            "cache" => {
                need_target()?;
                let mount = MountKind::Cache {
                    source,
                    id: self.id,
                    from: self.from,
                    readonly: self.writable == Some(false),
                    sharing: self.sharing.unwrap_or_default(),
                    mode: self.mode.unwrap_or(0o755),
                    uid,
                    gid,
                };
                let allowed = &[
                    "target", "source", "from", "id", "rw", "ro", "sharing", "mode", "uid", "gid",
                ];
                (mount, allowed)
            }
            "tmpfs" => {
                need_target()?;
                (MountKind::Tmpfs { size: self.size }, &["target", "size"])
            }
            "secret" => {
                if self.id.is_some() && self.source.is_some() {
                    return Err("a secret mount has either an id or a source".to_owned());
                }
                let id = self.id.or(self.source);
                if id.is_none() && self.target.is_none() && self.env.is_none() {
                    return Err("a secret mount needs an id, a target or a variable".to_owned());
                }
                let mount = MountKind::Secret {
                    id,
                    env: self.env,
                    required: self.required.unwrap_or(false),
                    mode: self.mode.unwrap_or(0o400),
                    uid,
                    gid,
                };
                (
                    mount,
                    &[
                        "target", "id", "source", "env", "required", "mode", "uid", "gid",
                    ],
                )
            }
            "ssh" => {
                let mount = MountKind::Ssh {
                    id: self.id,
                    required: self.required.unwrap_or(false),
                    mode: self.mode.unwrap_or(0o600),
                    uid,
                    gid,
                };
                (mount, &["target", "id", "required", "mode", "uid", "gid"])
            }
            other => {
                return Err(format!(
                    "`{other}` is no type of mount: there are bind, cache, tmpfs, secret and ssh"
                ));
            }
        };
        let target = self.target;
        Ok((
            RunMount {
                target,
                kind: mount,
                unresolved,
            },
            allowed,
        ))
    }
}

impl MountKind {
    /// Its type, as it is written.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Bind { .. } => "bind",
            Self::Cache { .. } => "cache",
            Self::Tmpfs { .. } => "tmpfs",
            Self::Secret { .. } => "secret",
            Self::Ssh { .. } => "ssh",
        }
    }
}

/// A size with a suffix in powers of 1024.
fn bytes(text: &str) -> Option<u64> {
    let text = text.to_ascii_lowercase();
    let text = text.strip_suffix('b').unwrap_or(&text);
    let (number, shift) = match text.chars().last()? {
        'k' => (text.strip_suffix('k')?, 10),
        'm' => (text.strip_suffix('m')?, 20),
        'g' => (text.strip_suffix('g')?, 30),
        't' => (text.strip_suffix('t')?, 40),
        _ => (text, 0),
    };
    number.parse::<u64>().ok()?.checked_shl(shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_replaced_before_an_option_means_something() {
        let replace = |text: &str| {
            let text = text.replace("$KIND", "cache").replace("$MODE", "750");
            let text = text.replace("$HOW", "locked").replace("$BAD", "often");
            Ok(text.replace("$DIR", "/d"))
        };
        let mount = parse("type=$KIND,id=x,target=$DIR/a,mode=$MODE,sharing=$HOW").unwrap();
        let mount = mount.resolved(&replace).unwrap();
        assert_eq!(mount.target.as_deref(), Some("/d/a"));
        assert!(
            matches!(
                &mount.kind,
                MountKind::Cache { id: Some(id), mode: 0o750, sharing: Sharing::Locked, .. } if id == "x"
            ),
            "{mount:?}"
        );
        let open = parse("type=cache,target=/a,sharing=$BAD").unwrap();
        assert!(open.resolved(&replace).unwrap_err().contains("often"));
        // What is wrong with it whatever the variables are is told at once, and the rest later.
        assert!(parse("type=tmpfs,target=$DIR,mode=$MODE").is_err());
        let open = parse("type=$KIND,target=/a,env=X").unwrap();
        assert!(
            open.resolved(&replace)
                .unwrap_err()
                .contains("no option `env`")
        );
        assert_eq!(parse("target=/a").unwrap().unresolved, None);
    }
}
