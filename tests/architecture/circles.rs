//! The files of one room (a directory below `src`) form no circle: a file does not import another one that imports
//! it, whether directly, through further files of the room, or through names that a module exports again.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    assert_none,
    imports::production_sources,
    sources::{Source, production_code, source_file},
};

/// The path of a module or of an item, from the root of the crate.
type Path = Vec<String>;

/// The imports between the files of one room: the name of each file with those that it imports.
type Room = BTreeMap<String, BTreeSet<String>>;

/// How often a name is followed through modules that export it again.
const EXPORTS_MAX: usize = 8;

/// Returns the path of the module that a file contains.
fn module_path(path: &str) -> Path {
    let inside = path.strip_prefix("src/").unwrap_or(path);
    let inside = inside.strip_suffix(".rs").unwrap_or(inside);
    let module = inside.strip_suffix("/mod").unwrap_or(inside);
    match module {
        "lib" | "main" => Path::new(),
        module => module.split('/').map(str::to_owned).collect(),
    }
}

/// Returns the paths in a tree such as `a::{b, c::D}`, and the text after it.
fn parse_tree(text: &str) -> (Vec<Path>, &str) {
    let text = text.trim_start();
    if let Some(group) = text.strip_prefix('{') {
        return parse_group(group);
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    if name.is_empty() {
        return (Vec::new(), text);
    }
    let (mut paths, rest) = match rest.strip_prefix("::") {
        Some(inside) => parse_tree(inside),
        None => (Vec::new(), rest),
    };
    if paths.is_empty() {
        paths.push(Path::new());
    }
    for path in &mut paths {
        path.insert(0, name.to_owned());
    }
    (paths, rest)
}

fn parse_group(mut rest: &str) -> (Vec<Path>, &str) {
    let mut paths = Vec::new();
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == ',');
        if rest.is_empty() {
            return (paths, rest);
        }
        if let Some(after) = rest.strip_prefix('}') {
            return (paths, after);
        }
        let (found, after) = parse_tree(rest);
        paths.extend(found);
        // Another name (`as`) or a star may follow.
        rest = &after[after.find([',', '}']).unwrap_or(after.len())..];
    }
}

/// Returns the paths that the code of a module names by `crate::`, `self::` or `super::`.
fn named_paths(module: &Path, code: &str) -> Vec<Path> {
    let mut named = Vec::new();
    for (at, root) in ["crate::", "self::", "super::"].iter().flat_map(|root| code.match_indices(root)) {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        let mut rest = &code[at + root.len()..];
        let mut base = match root {
            "crate::" => Path::new(),
            "self::" => module.clone(),
            _ => module[..module.len().saturating_sub(1)].to_vec(),
        };
        while let Some(above) = rest.strip_prefix("super::") {
            rest = above;
            base.pop();
        }
        let (paths, _) = parse_tree(rest);
        named.extend(paths.into_iter().map(|path| [base.clone(), path].concat()));
    }
    named
}

/// Returns the names that a module exports again, each with its path.
fn exported_names(module: &Path, code: &str) -> BTreeMap<String, Path> {
    let mut exported = BTreeMap::new();
    for (at, _) in code.match_indices("use ") {
        let before = code[..at].trim_end();
        let visibility = before.rsplit('\n').next().unwrap_or_default().trim_start();
        if !visibility.starts_with("pub") {
            continue;
        }
        let tree = &code[at + "use ".len()..];
        let (base, tree) = if let Some(tree) = tree.strip_prefix("crate::") {
            (Path::new(), tree)
        } else if let Some(tree) = tree.strip_prefix("super::") {
            (module[..module.len().saturating_sub(1)].to_vec(), tree)
        } else {
            (module.clone(), tree.strip_prefix("self::").unwrap_or(tree))
        };
        for path in parse_tree(tree).0 {
            if let Some(name) = path.last() {
                exported.insert(name.clone(), [base.clone(), path].concat());
            }
        }
    }
    exported
}

/// Returns the module that defines what a path names.
fn find_module(path: &Path, exports: &BTreeMap<Path, BTreeMap<String, Path>>) -> Path {
    let mut path = path.clone();
    for _ in 0..EXPORTS_MAX {
        let length = (0..=path.len()).rev().find(|length| exports.contains_key(&path[..*length]));
        let length = length.unwrap_or_default();
        let again = path.get(length).and_then(|name| exports.get(&path[..length])?.get(name));
        match again {
            Some(original) => path = [original.as_slice(), &path[length + 1..]].concat(),
            None => return path[..length].to_vec(),
        }
    }
    path
}

/// Returns the imports between the files of each room.
fn list_rooms(sources: &[Source]) -> BTreeMap<Path, Room> {
    let modules: Vec<(Path, String)> =
        sources.iter().map(|source| (module_path(&source.path), production_code(&source.text))).collect();
    let mut exports: BTreeMap<Path, BTreeMap<String, Path>> = BTreeMap::new();
    for (module, code) in &modules {
        exports.entry(module.clone()).or_default().extend(exported_names(module, code));
    }
    let mut rooms: BTreeMap<Path, Room> = BTreeMap::new();
    for (module, code) in &modules {
        let Some((file, room)) = module.split_last() else { continue };
        for path in named_paths(module, code) {
            let target = find_module(&path, &exports);
            if let Some((imported, imported_room)) = target.split_last()
                && imported_room == room
                && imported != file
            {
                let files = rooms.entry(room.to_vec()).or_default();
                files.entry(file.clone()).or_default().insert(imported.clone());
            }
        }
    }
    rooms
}

/// Returns the files that a file imports, directly or through others.
fn list_imported<'a>(room: &'a Room, file: &str) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    let mut open: Vec<&str> = vec![file];
    while let Some(next) = open.pop() {
        for imported in room.get(next).into_iter().flatten() {
            if found.insert(imported.as_str()) {
                open.push(imported);
            }
        }
    }
    found
}

fn find_circles(sources: &[Source]) -> Vec<String> {
    let mut findings = BTreeSet::new();
    for (path, room) in list_rooms(sources) {
        for file in room.keys() {
            let imported = list_imported(&room, file);
            let circle: Vec<&str> = imported
                .iter()
                .filter(|other| list_imported(&room, other).contains(file.as_str()))
                .copied()
                .collect();
            if !circle.is_empty() {
                let directory = [vec!["src".to_owned()], path.clone()].concat().join("/");
                findings
                    .insert(format!("{directory}: these files import one another: {}", circle.join(", ")));
            }
        }
    }
    findings.into_iter().collect()
}

#[test]
fn files_of_a_room_form_no_circle() {
    assert_none(&find_circles(&production_sources()));
}

#[test]
fn circles_are_found() {
    let room = |one: &str, two: &str, three: &str, module: &str| {
        find_circles(&[
            source_file("src/room/one.rs", one),
            source_file("src/room/two.rs", two),
            source_file("src/room/three/mod.rs", three),
            source_file("src/room/mod.rs", module),
        ])
    };
    let direct = room("use super::two::Two;", "use super::{\n    one::{One, Uno},\n};", "", "");
    assert_eq!(direct, ["src/room: these files import one another: one, two"]);
    let through_another =
        room("use super::two;", "fn f() { crate::room::three::g() }", "use super::one::*;", "");
    assert_eq!(through_another, ["src/room: these files import one another: one, three, two"]);
    let exported_again =
        room("use super::two::Two;", "use super::{One as Uno};", "", "pub use self::one::{One, Other};");
    assert_eq!(exported_again.len(), 1, "{exported_again:?}");
    for (one, two) in [
        ("use super::two::Two;", "use super::three::Three;"),
        ("use super::two::Two;", "// use super::one::One;"),
        ("use super::two::Two;", "#[cfg(test)]\nmod tests {\n    use super::super::one::One;\n}"),
        ("use super::two::Two;", "use super::Shared;"),
    ] {
        assert_none(&room(one, two, "", "pub struct Shared;"));
    }
}
