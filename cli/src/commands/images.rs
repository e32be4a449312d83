//! `ketch images` and `ketch image ls`.

use clap::Args;
use engine::{Engine, Filters};
use image::{Digest, ImageError, ImageSummary, Reference};

use super::Invocation;
use super::image::size;
use crate::format::{Field, Format, Row};
use crate::render;
use crate::times::{age, local_of, point};

/// Everything that a template can show, with the columns' names.
const FIELDS: [Field; 9] = [
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("Digest", "DIGEST"),
    ("ID", "IMAGE ID"),
    ("Platform", "PLATFORM"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Size", "SIZE"),
    ("Containers", "CONTAINERS"),
];

/// What stands for a name or a tag that is not there.
const NONE: &str = "<none>";

/// Options of `images`.
#[derive(Debug, Args)]
pub(crate) struct ImagesArgs {
    /// Show all images: they always are
    #[arg(short, long)]
    all: bool,
    /// Show the digests that names lead to
    #[arg(long)]
    digests: bool,
    /// Show only what matches: dangling, label, before, since, until, reference (KEY=VALUE, can be repeated)
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Print with a template such as {{.Repository}}, `table` and a template, or json
    #[arg(long)]
    format: Option<String>,
    /// Show ids only
    #[arg(short, long)]
    quiet: bool,
    /// Do not shorten ids
    #[arg(long)]
    no_trunc: bool,
    /// Only names that match: `REPOSITORY[:TAG]`, also with * and ?
    repository: Option<String>,
}

/// Lists images.
pub(crate) fn images(context: &Invocation, args: &ImagesArgs) -> anyhow::Result<u8> {
    let format = Format::parse(args.format.as_deref())?;
    let wanted = Wanted::parse(args)?;
    let engine = context.engine()?;
    let users = engine.containers()?;
    let with_digests = args.digests || args.format.as_ref().is_some_and(|text| text != "table");
    let mut rows = Vec::new();
    let mut ids = Vec::new();
    for image in wanted.of(&engine)? {
        let id = image.id.to_string();
        let containers = users.iter().filter(|user| user.config.image_id == id);
        let containers = containers.count().to_string();
        for name in wanted.names(&image) {
            ids.push(shown_id(&image.id, args));
            let digest = match name.filter(|_| with_digests) {
                Some(name) => engine
                    .store()
                    .resolve(&name.familiar(), Some(&image.platform))?,
                None => {
                    rows.push(row(&image, name, None, containers.clone(), args));
                    continue;
                }
            };
            let digest = digest.index_digest.unwrap_or(digest.manifest_digest);
            rows.push(row(&image, name, Some(digest), containers.clone(), args));
        }
    }
    if args.quiet && matches!(format, Format::Columns) {
        ids.dedup();
        for id in &ids {
            render::print(id)?;
        }
        return Ok(0);
    }
    let mut shown = vec!["Repository", "Tag"];
    if args.digests {
        shown.push("Digest");
    }
    shown.extend(["ID", "Platform", "CreatedSince", "Size"]);
    format.print(&FIELDS, &shown, &rows)?;
    Ok(0)
}

fn shown_id(id: &Digest, args: &ImagesArgs) -> String {
    if args.no_trunc {
        id.to_string()
    } else {
        id.short()
    }
}

fn row(
    image: &ImageSummary,
    name: Option<&Reference>,
    digest: Option<Digest>,
    containers: String,
    args: &ImagesArgs,
) -> Row {
    let none = || NONE.to_owned();
    let created = image.created.as_deref().unwrap_or_default();
    Row::new([
        (
            "Repository",
            name.map_or_else(none, Reference::familiar_name),
        ),
        (
            "Tag",
            name.and_then(Reference::tag)
                .map_or_else(none, str::to_owned),
        ),
        (
            "Digest",
            digest.map_or_else(none, |digest| digest.to_string()),
        ),
        ("ID", shown_id(&image.id, args)),
        (
            "Platform",
            format!("{}/{}", image.platform.os(), image.platform.architecture()),
        ),
        (
            "CreatedSince",
            image
                .created
                .as_deref()
                .map_or_else(String::new, |at| format!("{} ago", age(at))),
        ),
        ("CreatedAt", local_of(created)),
        ("Size", size(image.size)),
        ("Containers", containers),
    ])
}

/// Which images are shown.
struct Wanted {
    filters: Filters,
    dangling: Option<bool>,
    until: Option<time::OffsetDateTime>,
    /// Patterns, one of which a name has to match.
    references: Vec<String>,
}

impl Wanted {
    fn parse(args: &ImagesArgs) -> anyhow::Result<Self> {
        let keys = [
            "dangling",
            "label",
            "label!",
            "before",
            "since",
            "until",
            "reference",
        ];
        let filters = Filters::parse("images", &args.filter, &keys)?;
        let mut references = filters.values("reference").to_vec();
        references.extend(args.repository.clone());
        let last = filters.values("until").last();
        Ok(Self {
            dangling: filters.flag("images", "dangling")?,
            until: last.map(|text| point(text)).transpose()?,
            references,
            filters,
        })
    }

    fn of(&self, engine: &Engine) -> anyhow::Result<Vec<ImageSummary>> {
        let list = engine.store().list()?;
        let created = |name: &String| -> Result<(Option<String>, Digest), ImageError> {
            let image = engine.store().resolve(name, None)?;
            Ok((image.config.created, image.id))
        };
        let before: Vec<_> = self
            .filters
            .values("before")
            .iter()
            .map(created)
            .collect::<Result<_, _>>()?;
        let since: Vec<_> = self
            .filters
            .values("since")
            .iter()
            .map(created)
            .collect::<Result<_, _>>()?;
        let mut wanted = Vec::new();
        for image in list {
            let dangling = image.names.is_empty();
            let old = self.until.is_none_or(|until| {
                let made = image.created.as_deref().unwrap_or(&image.added);
                let made = time::OffsetDateTime::parse(
                    made,
                    &time::format_description::well_known::Rfc3339,
                );
                made.is_ok_and(|made| made < until)
            });
            let is_wanted = self.dangling.is_none_or(|wanted| wanted == dangling)
                && old
                && before
                    .iter()
                    .all(|(at, id)| image.created < *at && image.id != *id)
                && since
                    .iter()
                    .all(|(at, id)| image.created > *at && image.id != *id)
                && !self.names(&image).is_empty()
                && self.has_labels(engine, &image)?;
            if is_wanted {
                wanted.push(image);
            }
        }
        Ok(wanted)
    }

    /// The names that are shown; one that is none for an image without.
    fn names<'a>(&self, image: &'a ImageSummary) -> Vec<Option<&'a Reference>> {
        if image.names.is_empty() && self.references.is_empty() {
            return vec![None];
        }
        let fits = |name: &&Reference| {
            self.references.is_empty()
                || self.references.iter().any(|pattern| {
                    glob(pattern, &name.familiar()) || glob(pattern, &name.familiar_name())
                })
        };
        image.names.iter().filter(fits).map(Some).collect()
    }

    fn has_labels(&self, engine: &Engine, image: &ImageSummary) -> Result<bool, ImageError> {
        if !self.filters.has("label") && !self.filters.has("label!") {
            return Ok(true);
        }
        let image = engine.store().resolve(&image.id.to_string(), None)?;
        Ok(self.filters.labels(&image.config.config.labels))
    }
}

/// Whether a text matches a pattern: `*` and `?` stand for anything but a slash, `[a-c]` for one of
/// these.
fn glob(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    // The places in the pattern that the text read so far can have led to.
    let mut places = vec![0];
    for &c in &text {
        let mut next = Vec::new();
        for place in with_stars(&pattern, &places) {
            match pattern.get(place) {
                Some('*') if c != '/' => next.push(place),
                Some('?') if c != '/' => next.push(place + 1),
                Some('[') => match class(&pattern, place) {
                    Some((end, fits)) if fits(c) => next.push(end),
                    _ => {}
                },
                Some(&own) if own == c && own != '*' && own != '?' => next.push(place + 1),
                _ => {}
            }
        }
        next.sort_unstable();
        next.dedup();
        places = next;
    }
    with_stars(&pattern, &places).contains(&pattern.len())
}

/// The places, and those behind stars, which may stand for nothing.
fn with_stars(pattern: &[char], places: &[usize]) -> Vec<usize> {
    let mut all = Vec::new();
    for &place in places {
        let mut place = place;
        all.push(place);
        while pattern.get(place) == Some(&'*') {
            place += 1;
            all.push(place);
        }
    }
    all.sort_unstable();
    all.dedup();
    all
}

/// A class of characters that begins at `place`: where it ends, and what is in it.
fn class(pattern: &[char], place: usize) -> Option<(usize, impl Fn(char) -> bool + use<>)> {
    let rest = pattern.get(place + 1..)?;
    let length = rest.iter().position(|&c| c == ']')?;
    let inner = rest.get(..length)?;
    let (negated, inner) = match inner.split_first() {
        Some(('^', inner)) => (true, inner.to_vec()),
        _ => (false, inner.to_vec()),
    };
    let fits = move |c: char| {
        let in_range = inner
            .windows(3)
            .any(|w| w[1] == '-' && (w[0]..=w[2]).contains(&c));
        c != '/' && (in_range || inner.contains(&c)) != negated
    };
    Some((place + 1 + length + 1, fits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn glob_is_that_of_paths() {
        let table = [
            ("busybox", "busybox", true),
            ("busy*", "busybox:latest", true),
            ("busy*:*libc", "busybox:uclibc", true),
            ("*", "a/b", false),
            ("*/*", "a/b", true),
            ("b?x:[0-9]*", "box:1.2", true),
            ("b?x:[^0-9]*", "box:1.2", false),
            ("box", "boxes", false),
            ("[", "[", false),
            ("", "", true),
            ("***a", "bbba", true),
        ];
        for (pattern, text, expected) in table {
            assert_eq!(glob(pattern, text), expected, "{pattern} {text}");
        }
        // Does not take for ever.
        assert!(!glob(&"*a".repeat(200), &"a".repeat(150)));
    }
}
