//! `ketch cp`.

use std::io;
use std::path::Path;

use clap::Args;
use engine::{Copied, CopyOptions, FollowLink, Local, Owner};

use super::Invocation;
use super::image::size;
use crate::render::{self, Usage};

/// Options of `cp`.
#[derive(Debug, Args)]
pub(crate) struct CpArgs {
    /// Keep owners and groups (default: who receives owns)
    #[arg(short, long)]
    archive: bool,
    /// Copy what a link leads to that is named as the source
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Say nothing about what was copied
    #[arg(short, long)]
    quiet: bool,
    /// CONTAINER:PATH, a path of the host, or - for an archive on standard input
    #[arg(allow_hyphen_values = true)]
    source: String,
    /// CONTAINER:PATH, a path of the host, or - for an archive on standard output
    #[arg(allow_hyphen_values = true)]
    target: String,
}

/// One side of a copy.
pub(crate) enum Place<'a> {
    Container(&'a str, &'a Path),
    Host(&'a Path),
    Stream,
}

/// What begins like a path is one of the host; so is what has no colon.
pub(crate) fn place(text: &str) -> Place<'_> {
    if text == "-" {
        return Place::Stream;
    }
    match text.split_once(':') {
        Some((name, path)) if !name.is_empty() && !text.starts_with(['/', '.']) => {
            Place::Container(name, Path::new(path))
        }
        _ => Place::Host(Path::new(text)),
    }
}

/// Copies files between a container and the host.
pub(crate) fn cp(context: &Invocation, args: &CpArgs) -> anyhow::Result<u8> {
    let options = CopyOptions {
        follow: if args.follow_link {
            FollowLink::Yes
        } else {
            FollowLink::No
        },
        owner: if args.archive {
            Owner::Source
        } else {
            Owner::Receiver
        },
    };
    let (copied, to_stream) = match (place(&args.source), place(&args.target)) {
        (Place::Container(name, from), to) => {
            let to = match to {
                Place::Host(path) => Some(path),
                Place::Stream => None,
                Place::Container(..) => {
                    let text = "cannot copy between two containers: copy to the host first";
                    return Err(Usage(text.to_owned()).into());
                }
            };
            let engine = context.engine_of(name)?;
            let container = engine.container(name)?;
            let copied = match to {
                Some(path) => engine.copy_out(&container, from, Local::Path(path), options)?,
                None => {
                    let mut output = io::stdout().lock();
                    engine.copy_out(&container, from, Local::Stream(&mut output), options)?
                }
            };
            (copied, to.is_none())
        }
        (from, Place::Container(name, to)) => {
            let engine = context.engine_of(name)?;
            let container = engine.container(name)?;
            let copied = match from {
                Place::Host(path) => engine.copy_in(&container, Local::Path(path), to, options)?,
                _ => {
                    let mut input = io::stdin().lock();
                    engine.copy_in(&container, Local::Stream(&mut input), to, options)?
                }
            };
            (copied, false)
        }
        _ => {
            let text = "cannot copy: one of the two paths must be CONTAINER:PATH";
            return Err(Usage(text.to_owned()).into());
        }
    };
    report(args, &copied, to_stream);
    Ok(0)
}

fn report(args: &CpArgs, copied: &Copied, to_stream: bool) {
    for skipped in &copied.skipped {
        render::line(&format!(
            "ketch: warning: left out {}",
            render::clean(skipped)
        ));
    }
    if !(args.quiet || to_stream) {
        let target = render::clean(&args.target);
        render::line(&format!(
            "Successfully copied {} to {target}",
            size(copied.bytes)
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn place_is_a_container_only_with_a_name_and_a_colon() {
        assert!(matches!(place("-"), Place::Stream));
        assert!(matches!(place("web:/a"), Place::Container("web", _)));
        assert!(
            matches!(place("web:a:b"), Place::Container("web", path) if path == Path::new("a:b"))
        );
        for host in ["/a:b", "./a:b", "a", ":a"] {
            assert!(matches!(place(host), Place::Host(_)), "{host}");
        }
    }
}
