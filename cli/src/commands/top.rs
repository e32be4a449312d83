//! `ketch top`: the processes of a container with the columns of ps(1), read from `/proc`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;

use clap::Args;
use time::OffsetDateTime;
use time::macros::format_description;

use super::Invocation;
use crate::render::{self, Usage};

/// Arguments of `top`.
#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// Container, by name or id, then options of ps(1): -ef (default), aux, or -o COLUMN,…
    #[arg(
        value_names = ["CONTAINER", "OPTIONS"],
        num_args = 1..,
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    container_and_options: Vec<String>,
}

/// What a column shows of a process.
type Show = fn(&Process, &Host) -> String;

/// A column: its names in `-o`, its header, and what it shows.
type Column = (&'static [&'static str], &'static str, Show);

const COLUMNS: [Column; 25] = [
    (&["pid"], "PID", |p, _| p.pid.to_string()),
    (&["ppid"], "PPID", |p, _| p.field(4).to_string()),
    (&["pgid", "pgrp"], "PGID", |p, _| p.field(5).to_string()),
    (&["sid", "sess"], "SID", |p, _| p.field(6).to_string()),
    (&["uid", "euid"], "UID", |p, _| p.uid.to_string()),
    (&["gid", "egid"], "GID", |p, _| p.gid.to_string()),
    (&["user", "euser", "uname"], "USER", |p, host| {
        host.user(p.uid)
    }),
    (&["group", "egroup"], "GROUP", |p, host| host.group(p.gid)),
    (&["c"], "C", |p, host| {
        (p.cpu_permille(host) / 10).to_string()
    }),
    (&["pcpu", "%cpu"], "%CPU", |p, host| {
        tenths(p.cpu_permille(host))
    }),
    (&["pmem", "%mem"], "%MEM", |p, host| {
        tenths(p.memory_permille(host))
    }),
    (&["vsz", "vsize"], "VSZ", |p, _| {
        (p.field(23) / 1024).to_string()
    }),
    (&["rss", "rssize"], "RSS", |p, host| {
        (p.resident(host) / 1024).to_string()
    }),
    (&["tty", "tt", "tname"], "TTY", |p, _| tty(p.field(7))),
    (&["stat", "state", "s"], "STAT", |p, _| p.state.clone()),
    (&["stime"], "STIME", |p, host| p.started(host)),
    (&["start", "start_time"], "START", |p, host| p.started(host)),
    (&["etime"], "ELAPSED", |p, host| elapsed(p.age(host))),
    (&["etimes"], "ELAPSED", |p, host| p.age(host).to_string()),
    (&["time", "cputime"], "TIME", |p, host| {
        clock(p.cpu_seconds(host))
    }),
    (&["ni", "nice"], "NI", |p, _| p.signed(19).to_string()),
    (&["pri", "priority"], "PRI", |p, _| p.signed(18).to_string()),
    (&["nlwp", "thcount"], "NLWP", |p, _| p.field(20).to_string()),
    (&["comm", "ucmd", "ucomm"], "COMMAND", |p, _| p.name.clone()),
    (&["args", "cmd", "command"], "CMD", |p, _| p.command.clone()),
];

/// What `-f` shows.
const FULL: &str = "user=UID,pid,ppid,c,stime,tty,time,args";

/// What `u` shows.
const USERS: &str = "user,pid,%cpu,%mem,vsz,rss,tty,stat,start,time,args=COMMAND";

/// What neither shows.
const SHORT: &str = "pid,tty,time,comm=CMD";

/// Shows the processes of a container.
pub(crate) fn top(context: &Invocation, args: &TopArgs) -> anyhow::Result<u8> {
    let (name, options) = args
        .container_and_options
        .split_first()
        .ok_or_else(|| Usage("no container was given".to_owned()))?;
    let columns = columns(&chosen(options)?)?;
    let engine = context.engine()?;
    let pids = engine.processes(&engine.container(name)?)?;
    let host = Host::read();
    let rows: Vec<Vec<String>> = pids
        .into_iter()
        // What has ended since is left out.
        .filter_map(Process::read)
        .map(|process| {
            let cell = |(_, of): &(String, _)| -> String {
                let of: &fn(&Process, &Host) -> String = of;
                render::clean(&of(&process, &host))
            };
            columns.iter().map(cell).collect()
        })
        .collect();
    let header: Vec<&str> = columns.iter().map(|(header, _)| header.as_str()).collect();
    render::table(&header, &rows)?;
    Ok(0)
}

/// The list of columns that the options ask for.
fn chosen(options: &[String]) -> Result<String, Usage> {
    let refuse = |option: &str| {
        let known = "it knows -ef, aux and -o COLUMN,…";
        Usage(format!("cannot use the option `{option}` of top: {known}"))
    };
    let mut list: Option<String> = None;
    let mut words = options.iter();
    while let Some(word) = words.next() {
        let letters = word.trim_start_matches('-');
        if letters.is_empty() || word.starts_with("--") {
            return Err(refuse(word));
        }
        for (at, letter) in letters.char_indices() {
            match letter {
                // Every process of the container is shown anyway.
                'e' | 'A' | 'a' | 'x' | 'w' => {}
                'f' if word.starts_with('-') => list = Some(FULL.to_owned()),
                'u' if !word.starts_with('-') || word == "-aux" => list = Some(USERS.to_owned()),
                'o' => {
                    let rest = word
                        .trim_start_matches('-')
                        .get(at + 1..)
                        .unwrap_or_default();
                    let columns = match rest {
                        "" => words.next().ok_or_else(|| refuse(word))?,
                        rest => rest,
                    };
                    let more = list.filter(|own| ![FULL, USERS].contains(&own.as_str()));
                    list = Some(match more {
                        Some(own) => format!("{own},{columns}"),
                        None => columns.to_owned(),
                    });
                    break;
                }
                _ => return Err(refuse(word)),
            }
        }
    }
    let otherwise = if options.is_empty() { FULL } else { SHORT };
    Ok(list.unwrap_or_else(|| otherwise.to_owned()))
}

/// The columns of a list, each with its header.
fn columns(list: &str) -> Result<Vec<(String, Show)>, Usage> {
    let mut columns = Vec::new();
    for text in list.split([',', ' ']).filter(|text| !text.is_empty()) {
        let (name, header) = match text.split_once('=') {
            Some((name, header)) => (name, Some(header)),
            None => (text, None),
        };
        let lower = name.to_lowercase();
        let column = COLUMNS
            .iter()
            .find(|(names, ..)| names.contains(&lower.as_str()));
        let Some((_, own, of)) = column else {
            return Err(Usage(format!(
                "cannot show the column `{name}`: it is not known"
            )));
        };
        columns.push((header.unwrap_or(own).to_owned(), *of));
    }
    Ok(columns)
}

/// What columns need to know of the host.
struct Host {
    users: BTreeMap<u32, String>,
    groups: BTreeMap<u32, String>,
    ticks: u64,
    page: u64,
    memory: u64,
    /// Seconds since 1970.
    booted: u64,
    now: OffsetDateTime,
}

impl Host {
    fn read() -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let number = |text: &str, key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key));
            line.and_then(|line| line.split_whitespace().next()?.parse().ok())
                .unwrap_or(0)
        };
        let memory: u64 = number(&text("/proc/meminfo"), "MemTotal:");
        Self {
            users: names(&text("/etc/passwd")),
            groups: names(&text("/etc/group")),
            ticks: rustix::param::clock_ticks_per_second().max(1),
            page: u64::try_from(rustix::param::page_size()).unwrap_or(4096),
            memory: memory.saturating_mul(1024),
            booted: number(&text("/proc/stat"), "btime "),
            now: OffsetDateTime::now_utc(),
        }
    }

    fn user(&self, id: u32) -> String {
        self.users
            .get(&id)
            .cloned()
            .unwrap_or_else(|| id.to_string())
    }

    fn group(&self, id: u32) -> String {
        self.groups
            .get(&id)
            .cloned()
            .unwrap_or_else(|| id.to_string())
    }
}

/// Names by number, of passwd(5) and group(5).
fn names(text: &str) -> BTreeMap<u32, String> {
    let line = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        Some((fields.nth(1)?.parse().ok()?, name))
    };
    text.lines().filter_map(line).collect()
}

/// One process.
#[derive(Debug)]
struct Process {
    pid: i32,
    uid: u32,
    gid: u32,
    name: String,
    state: String,
    command: String,
    /// The fields of `/proc/<pid>/stat` from the fourth on.
    fields: Vec<String>,
}

impl Process {
    fn read(pid: i32) -> Option<Self> {
        let meta = fs::metadata(format!("/proc/{pid}")).ok()?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        Self::parse(pid, (meta.uid(), meta.gid()), &stat, &arguments)
    }

    fn parse(pid: i32, (uid, gid): (u32, u32), stat: &str, arguments: &[u8]) -> Option<Self> {
        let (before, after) = stat.rsplit_once(") ")?;
        let (_, name) = before.split_once(" (")?;
        let mut fields = after.split_whitespace().map(str::to_owned);
        let state = fields.next()?;
        let command = String::from_utf8_lossy(arguments);
        let command = command.trim_end_matches('\0').replace('\0', " ");
        Some(Self {
            pid,
            uid,
            gid,
            state,
            command: if command.is_empty() {
                format!("[{name}]")
            } else {
                command
            },
            name: name.to_owned(),
            fields: fields.collect(),
        })
    }

    /// A field by its number in proc(5).
    fn field(&self, number: usize) -> u64 {
        let text = self.fields.get(number.saturating_sub(4));
        text.and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    fn signed(&self, number: usize) -> i64 {
        let text = self.fields.get(number.saturating_sub(4));
        text.and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    fn cpu_seconds(&self, host: &Host) -> u64 {
        (self.field(14) + self.field(15)) / host.ticks
    }

    /// Seconds since it was started.
    fn age(&self, host: &Host) -> u64 {
        let started = host.booted + self.field(22) / host.ticks;
        let now = u64::try_from(host.now.unix_timestamp()).unwrap_or(0);
        now.saturating_sub(started)
    }

    /// Processor time in thousandths of its life.
    fn cpu_permille(&self, host: &Host) -> u64 {
        let used = (self.field(14) + self.field(15)).saturating_mul(1000) / host.ticks;
        used / self.age(host).max(1)
    }

    fn resident(&self, host: &Host) -> u64 {
        self.field(24).saturating_mul(host.page)
    }

    fn memory_permille(&self, host: &Host) -> u64 {
        self.resident(host).saturating_mul(1000) / host.memory.max(1)
    }

    /// The time of day, or the day of one that was started before.
    fn started(&self, host: &Host) -> String {
        let at = host.booted + self.field(22) / host.ticks;
        let at = i64::try_from(at).unwrap_or(0);
        let Ok(at) = OffsetDateTime::from_unix_timestamp(at) else {
            return "?".to_owned();
        };
        let text = match at.date() == host.now.date() {
            true => at.format(format_description!("[hour]:[minute]")),
            false => at.format(format_description!("[month repr:short][day]")),
        };
        text.unwrap_or_default()
    }
}

fn tenths(permille: u64) -> String {
    format!("{}.{}", permille / 10, permille % 10)
}

/// `[DAYS-]HH:MM:SS`.
fn clock(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let time = format!("{:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60);
    if days == 0 {
        time
    } else {
        format!("{days}-{time}")
    }
}

/// The same without hours that are none.
fn elapsed(seconds: u64) -> String {
    if seconds < 3600 {
        return format!("{:02}:{:02}", seconds / 60, seconds % 60);
    }
    clock(seconds)
}

/// The name of a terminal by its number (proc(5), `tty_nr`): pseudo-terminals have majors from 136
/// to 143.
fn tty(number: u64) -> String {
    let (major, minor) = (
        number >> 8 & 0xfff,
        (number & 0xff) | (number >> 12 & 0xfff00),
    );
    match major {
        0 => "?".to_owned(),
        136..=143 => format!("pts/{}", (major - 136) * 256 + minor),
        4 => format!("tty{minor}"),
        _ => format!("{major}:{minor}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn options_of_ps_choose_columns() {
        let table: [(&[&str], &str); 8] = [
            (&[], FULL),
            (&["-ef"], FULL),
            (&["aux"], USERS),
            (&["-aux"], USERS),
            (&["-e"], SHORT),
            (&["-o", "pid,comm"], "pid,comm"),
            (&["-eo", "pid", "-o", "args=X"], "pid,args=X"),
            (&["opid"], "pid"),
        ];
        for (words, list) in table {
            assert_eq!(chosen(&options(words)).unwrap(), list, "{words:?}");
        }
        for words in [&["-Z"][..], &["-o"], &["--forest"], &["-"]] {
            assert!(chosen(&options(words)).is_err(), "{words:?}");
        }
        let headers: Vec<String> = columns("pid,args=X,PCPU")
            .unwrap()
            .into_iter()
            .map(|c| c.0)
            .collect();
        assert_eq!(headers, ["PID", "X", "%CPU"]);
        assert!(columns("nope").is_err());
    }

    #[test]
    fn process_is_read_with_a_name_of_any_kind() {
        let stat = "9 (a) (b) R 1 2 3 34816 3 0 0 0 0 0 700 50 0 0 20 -5 2 0 100 2048 3";
        let process = Process::parse(9, (0, 0), stat, b"a\0b c\0").unwrap();
        assert_eq!(
            (process.name.as_str(), process.state.as_str()),
            ("a) (b", "R")
        );
        assert_eq!(
            (process.field(4), process.field(7), process.signed(19)),
            (1, 34816, -5)
        );
        assert_eq!(process.command, "a b c");
        assert_eq!(tty(process.field(7)), "pts/0");
    }

    #[test]
    fn times_are_those_of_ps() {
        assert_eq!(clock(3661), "01:01:01");
        assert_eq!(clock(90_061), "1-01:01:01");
        assert_eq!(elapsed(61), "01:01");
        assert_eq!(tenths(1234), "123.4");
    }
}
