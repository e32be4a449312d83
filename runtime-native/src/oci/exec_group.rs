//! The control groups that a further program is put into: those of the container, or with `--cgroup`
//! groups below them.

use std::path::Path;

use runtime::CgroupPlan;

use super::OciError;
use super::create::c_path;

/// Puts the program below the container's groups. Each of `wanted` is a path for all hierarchies, or
/// after `controller,...:` for those of v1 that hold these controllers.
pub(super) fn below(mut groups: CgroupPlan, wanted: &[String]) -> Result<CgroupPlan, OciError> {
    for one in wanted {
        let (controllers, path) = match one.split_once(':') {
            Some((controllers, path)) => (Some(controllers), path),
            None => (None, one.as_str()),
        };
        let path = path.trim_matches('/');
        if path.split('/').any(|part| part == "..") {
            return Err(refused(
                one,
                "bad sub cgroup path: it leaves the container's own",
            ));
        }
        match controllers {
            None => move_all(&mut groups, path)?,
            Some(controllers) => {
                for controller in controllers.split(',') {
                    move_one(&mut groups, controller, path).ok_or_else(|| {
                        let why = format!("unknown controller `{controller}`");
                        refused(one, &why)
                    })??;
                }
            }
        }
    }
    Ok(groups)
}

fn refused(option: &str, why: &str) -> OciError {
    OciError::Unsupported {
        what: format!("use `--cgroup {option}`"),
        why: why.to_owned(),
    }
}

fn move_all(groups: &mut CgroupPlan, path: &str) -> Result<(), OciError> {
    if path.is_empty() {
        return Ok(());
    }
    for tasks in &mut groups.enter {
        *tasks = c_path(&moved(&tasks.to_string_lossy(), path))?;
    }
    if let Some(dir) = &groups.clone_into {
        groups.clone_into = Some(c_path(&Path::new(&*dir.to_string_lossy()).join(path))?);
    }
    Ok(())
}

/// Moves in the hierarchy of one controller; none when the container is in no such hierarchy.
fn move_one(groups: &mut CgroupPlan, controller: &str, path: &str) -> Option<Result<(), OciError>> {
    let holds = |tasks: &str| {
        let hierarchy = tasks.strip_prefix("/sys/fs/cgroup/");
        let hierarchy = hierarchy.and_then(|rest| rest.split('/').next());
        hierarchy.is_some_and(|names| names.split(',').any(|name| name == controller))
    };
    let tasks = groups
        .enter
        .iter_mut()
        .find(|tasks| holds(&tasks.to_string_lossy()))?;
    Some(c_path(&moved(&tasks.to_string_lossy(), path)).map(|path| *tasks = path))
}

/// The `tasks` of the group at `path` below that of `tasks`.
fn moved(tasks: &str, path: &str) -> std::path::PathBuf {
    let dir = tasks.trim_end_matches("/tasks");
    Path::new(dir).join(path).join("tasks")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups() -> CgroupPlan {
        CgroupPlan {
            enter: vec![
                c"/sys/fs/cgroup/cpu,cpuacct/ketch/a/tasks".to_owned(),
                c"/sys/fs/cgroup/memory/ketch/a/tasks".to_owned(),
            ],
            clone_into: Some(c"/sys/fs/cgroup/unified/ketch/a".to_owned()),
            ..CgroupPlan::default()
        }
    }

    fn entered(wanted: &[&str]) -> Result<CgroupPlan, String> {
        let wanted: Vec<String> = wanted.iter().map(|one| (*one).to_owned()).collect();
        below(groups(), &wanted).map_err(|error| error.to_string())
    }

    #[test]
    fn path_alone_holds_for_every_hierarchy() {
        let groups = entered(&["/x/y"]).unwrap();
        assert_eq!(
            groups.enter[1].to_str().unwrap(),
            "/sys/fs/cgroup/memory/ketch/a/x/y/tasks"
        );
        let unified = groups.clone_into.unwrap();
        assert_eq!(
            unified.to_str().unwrap(),
            "/sys/fs/cgroup/unified/ketch/a/x/y"
        );
        assert_eq!(entered(&["/"]).unwrap().enter, self::groups().enter);
    }

    #[test]
    fn path_of_a_controller_holds_for_its_hierarchy() {
        let moved = entered(&["memory:m", "cpuacct:c"]).unwrap();
        assert_eq!(
            moved.enter[0].to_str().unwrap(),
            "/sys/fs/cgroup/cpu,cpuacct/ketch/a/c/tasks"
        );
        assert_eq!(
            moved.enter[1].to_str().unwrap(),
            "/sys/fs/cgroup/memory/ketch/a/m/tasks"
        );
        assert_eq!(moved.clone_into, groups().clone_into);
    }

    #[test]
    fn what_leaves_the_container_or_is_no_controller_is_refused() {
        assert!(
            entered(&["a/../.."])
                .unwrap_err()
                .contains("bad sub cgroup path")
        );
        assert!(
            entered(&["memory:../b"])
                .unwrap_err()
                .contains("bad sub cgroup path")
        );
        assert!(
            entered(&["whaat:/"])
                .unwrap_err()
                .contains("unknown controller `whaat`")
        );
    }
}
