//! The processes of a container as `top` shows them, with the columns of `ps -ef` or `ps aux`.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::error::ApiError;

/// What the kernel says about one process (proc(5)).
struct Process {
    pid: i32,
    uid: u32,
    command: String,
    name: String,
    /// The fields of `stat` from the third on.
    fields: Vec<String>,
}

impl Process {
    fn read(pid: i32) -> Option<Self> {
        let dir = format!("/proc/{pid}");
        let stat = fs::read_to_string(format!("{dir}/stat")).ok()?;
        let (head, rest) = stat.rsplit_once(") ")?;
        let name = head.split_once('(')?.1.to_owned();
        let line = fs::read(format!("{dir}/cmdline")).unwrap_or_default();
        let words: Vec<String> = line
            .split(|byte| *byte == 0)
            .filter(|word| !word.is_empty())
            .map(|word| String::from_utf8_lossy(word).into_owned())
            .collect();
        Some(Self {
            pid,
            uid: fs::metadata(&dir).ok()?.uid(),
            command: match words.is_empty() {
                true => format!("[{name}]"),
                false => words.join(" "),
            },
            name,
            fields: rest.split_whitespace().map(str::to_owned).collect(),
        })
    }

    fn field(&self, number: usize) -> u64 {
        let field = self.fields.get(number.saturating_sub(3));
        field.and_then(|field| field.parse().ok()).unwrap_or(0)
    }

    /// Seconds of processor time.
    fn cpu_seconds(&self) -> u64 {
        (self.field(14) + self.field(15)) / ticks()
    }

    /// When it was started, in seconds since 1970.
    fn started(&self) -> i64 {
        let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
        let uptime = uptime
            .split('.')
            .next()
            .and_then(|text| text.parse::<i64>().ok());
        let since_boot = i64::try_from(self.field(22) / ticks()).unwrap_or(0);
        OffsetDateTime::now_utc().unix_timestamp() - uptime.unwrap_or(0) + since_boot
    }

    fn terminal(&self) -> String {
        // Major 136 on are pseudo-terminals (Documentation/admin-guide/devices.txt).
        let number = self.field(7);
        let (major, minor) = ((number >> 8) & 0xfff, number & 0xff);
        match major {
            0 => "?".to_owned(),
            136..=143 => format!("pts/{}", (major - 136) * 256 + minor),
            _ => format!("tty{minor}"),
        }
    }
}

fn ticks() -> u64 {
    rustix::param::clock_ticks_per_second().max(1)
}

fn user(uid: u32) -> String {
    let text = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let line = text.lines().find(|line| {
        let number = line.split(':').nth(2);
        number == Some(uid.to_string().as_str())
    });
    let name = line.and_then(|line| line.split(':').next());
    name.map_or_else(|| uid.to_string(), str::to_owned)
}

fn hours(seconds: u64) -> String {
    format!(
        "{:02}:{:02}:{:02}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

/// What a column shows.
type Show = fn(&Process) -> String;

/// The columns by their names in `-o`, with their headers.
const COLUMNS: [(&str, &str, Show); 16] = [
    ("user", "UID", |p| user(p.uid)),
    ("uid", "UID", |p| p.uid.to_string()),
    ("pid", "PID", |p| p.pid.to_string()),
    ("ppid", "PPID", |p| p.field(4).to_string()),
    ("pgid", "PGID", |p| p.field(5).to_string()),
    ("c", "C", |_| "0".to_owned()),
    ("%cpu", "%CPU", |_| "0.0".to_owned()),
    ("%mem", "%MEM", |_| "0.0".to_owned()),
    ("vsz", "VSZ", |p| (p.field(23) / 1024).to_string()),
    ("rss", "RSS", |p| (p.field(24) * 4).to_string()),
    ("tty", "TTY", Process::terminal),
    ("stat", "STAT", |p| {
        p.fields.first().cloned().unwrap_or_default()
    }),
    ("stime", "STIME", |p| {
        let at = OffsetDateTime::from_unix_timestamp(p.started());
        at.map_or_else(
            |_| String::new(),
            |at| format!("{:02}:{:02}", at.hour(), at.minute()),
        )
    }),
    ("time", "TIME", |p| hours(p.cpu_seconds())),
    ("comm", "COMMAND", |p| p.name.clone()),
    ("args", "CMD", |p| p.command.clone()),
];

/// The columns that options of ps(1) ask for.
fn chosen(options: &str) -> Result<Vec<&'static str>, ApiError> {
    let bad = || {
        ApiError::bad(format!(
            "cannot use the options `{options}` of ps: there are -ef, aux and -o COLUMN,…"
        ))
    };
    match options.trim() {
        "" | "-ef" | "-f" | "-e -f" => {
            return Ok(vec![
                "user", "pid", "ppid", "c", "stime", "tty", "time", "args",
            ]);
        }
        "aux" | "-aux" | "u" => {
            return Ok(vec![
                "user", "pid", "%cpu", "%mem", "vsz", "rss", "tty", "stat", "stime", "time", "args",
            ]);
        }
        _ => {}
    }
    let (before, list) = options
        .split_once("-o")
        .or_else(|| options.split_once("o "))
        .ok_or_else(bad)?;
    if !["", "-e", "-ef", "-a", "-A", "a", "ax"].contains(&before.trim()) {
        return Err(bad());
    }
    list.split([',', ' '])
        .filter(|name| !name.is_empty())
        .map(|name| {
            let name = match name {
                "cmd" | "command" => "args",
                "euser" | "uname" => "user",
                "pcpu" => "%cpu",
                "pmem" => "%mem",
                "euid" => "uid",
                "state" | "s" => "stat",
                "start" | "start_time" => "stime",
                "cputime" => "time",
                other => other,
            };
            let found = COLUMNS.iter().find(|(own, _, _)| *own == name);
            found.map(|(own, _, _)| *own).ok_or_else(bad)
        })
        .collect()
}

/// The table.
pub(crate) fn table(pids: &[i32], options: &str) -> Result<Value, ApiError> {
    let names = chosen(options)?;
    let columns: Vec<_> = names
        .iter()
        .filter_map(|name| COLUMNS.iter().find(|(own, _, _)| own == name))
        .collect();
    let titles: Vec<&str> = columns.iter().map(|(_, title, _)| *title).collect();
    let rows: Vec<Vec<String>> = pids
        .iter()
        // What has ended since is left out.
        .filter_map(|pid| Process::read(*pid))
        .map(|process| columns.iter().map(|(_, _, show)| show(&process)).collect())
        .collect();
    Ok(json!({ "Titles": titles, "Processes": rows }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_process_is_shown_and_odd_options_are_refused() {
        let own = i32::try_from(std::process::id()).unwrap();
        let shown = table(&[own], "-ef").unwrap();
        assert_eq!(shown["Titles"][1], "PID");
        assert_eq!(shown["Processes"][0][1], own.to_string());
        let shown = table(&[own], "-eo pid,comm");
        assert!(shown.is_ok() || chosen("-o pid,comm").is_ok());
        assert!(table(&[own], "--forest").is_err() && table(&[own], "-o nope").is_err());
    }
}
