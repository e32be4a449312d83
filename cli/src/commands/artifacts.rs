//! The commands that are about images and registries as things: which of them the words name.

use super::{
    Invocation, df, disk, image_tools, login, manifest, parse, push, registry_lists, search,
};

/// Runs the command that the words name; `None` when it is none of these.
pub(crate) fn dispatch(
    context: &Invocation,
    command: &str,
    rest: &[&str],
) -> Option<anyhow::Result<u8>> {
    let (verb, after) = match rest.split_first() {
        Some((verb, after)) => (*verb, after),
        None => ("", rest),
    };
    if command == disk::EMPTY_TRASH {
        return Some(disk::empty_trash(context));
    }
    let plain = match command {
        "push" => parse(command, rest).and_then(|args| push::push(context, &args)),
        "login" => parse(command, rest).and_then(|args| login::login(context, &args)),
        "logout" => parse(command, rest).and_then(|args| login::logout(context, &args)),
        "search" => parse(command, rest).and_then(|args| search::search(context, &args)),
        "images" if rest.contains(&"--tree") => {
            parse(command, rest).and_then(|args| image_tools::tree(context, &args))
        }
        "image" | "manifest" | "system" => return grouped(context, command, verb, after),
        _ => return None,
    };
    Some(plain)
}

fn grouped(
    context: &Invocation,
    group: &str,
    verb: &str,
    rest: &[&str],
) -> Option<anyhow::Result<u8>> {
    let name = format!("{group} {verb}");
    let name = name.as_str();
    Some(match name {
        "image push" => parse("push", rest).and_then(|args| push::push(context, &args)),
        "image ls" | "image list" if rest.contains(&"--tree") => {
            parse(name, rest).and_then(|args| image_tools::tree(context, &args))
        }
        "image prune" => parse(name, rest).and_then(|args| disk::prune(context, &args)),
        "image wrap" => parse(name, rest).and_then(|args| push::wrap(context, &args)),
        "image convert" => parse(name, rest).and_then(|args| image_tools::convert(context, &args)),
        "image diff" => parse(name, rest).and_then(|args| image_tools::diff(context, &args)),
        "image mount" => parse(name, rest).and_then(|args| image_tools::mount(context, &args)),
        "image unmount" | "image umount" => {
            parse(name, rest).and_then(|args| image_tools::unmount(context, &args))
        }
        "image tags" => {
            parse(name, rest).and_then(|args| registry_lists::list_tags(context, &args))
        }
        "image referrers" => {
            parse(name, rest).and_then(|args| registry_lists::list_referrers(context, &args))
        }
        "system df" => parse(name, rest).and_then(|args| df::df(context, &args)),
        "manifest create" => parse(name, rest).and_then(|args| manifest::create(context, &args)),
        "manifest annotate" => {
            parse(name, rest).and_then(|args| manifest::annotate(context, &args))
        }
        "manifest inspect" => parse(name, rest).and_then(|args| manifest::inspect(context, &args)),
        "manifest push" => parse(name, rest).and_then(|args| manifest::push(context, &args)),
        "manifest rm" => parse(name, rest).and_then(|args| manifest::rm(context, &args)),
        _ => return None,
    })
}
