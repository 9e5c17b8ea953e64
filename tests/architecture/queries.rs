//! Rules for queries: each says whose rows it reads, states have names, and SQL text says why it is not
//! written with the query builder.

use crate::{
    assert_none,
    sources::{Source, production_code, rust_files_in, source_file},
    sql_states::find_compared_numbers,
};

/// Returns the sources that contain queries.
fn query_sources() -> Vec<Source> {
    rust_files_in("src/db").into_iter().filter(|source| !source.path.ends_with("schema.rs")).collect()
}

/// Reads the names of the tenants' tables from the generated schema.
fn tenant_tables() -> Vec<String> {
    let schema = rust_files_in("src/db").into_iter().find(|source| source.path.ends_with("db/schema.rs"));
    let text = schema.expect("src/db/schema.rs exists").text;
    let (_, list) = text.split_once("tenant_tables!(").expect("the schema lists the tenants' tables");
    let list = list.split(')').next().unwrap_or_default();
    list.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()
}

/// Returns the argument at the start of a text, up to the closing parenthesis of its call.
fn take_argument(text: &str) -> &str {
    let mut depth = 0_usize;
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' if depth == 0 => return &text[..at],
            ')' => depth -= 1,
            _ => {}
        }
    }
    text
}

/// Returns whether the condition of a join with a table compares its tenant. The condition may be a variable
/// of the code before the join.
fn joins_same_tenant(condition: &str, before: &str, table: &str) -> bool {
    let variable = format!("let{condition}=");
    let condition = match before.rsplit_once(&variable) {
        Some((_, value)) => value.split(';').next().unwrap_or_default(),
        None => condition,
    };
    condition.contains(&format!("{table}::tenant_id.eq("))
        || condition.contains(&format!("::tenant_id.eq({table}::tenant_id)"))
}

/// Returns the uses of a tenant's table that say neither which tenant they read nor that they read all.
fn find_unscoped_tables(source: &Source, tables: &[String]) -> Vec<String> {
    let code: String = production_code(&source.text).split_whitespace().collect();
    let mut found = Vec::new();
    for table in tables {
        let name = format!("{table}::table");
        for (start, _) in code.match_indices(&name) {
            let (before, after) = (&code[..start], &code[start + name.len()..]);
            let is_longer_name = before.ends_with(|last: char| last.is_alphanumeric() || last == '_');
            let is_scoped = after.starts_with(".of(") || after.starts_with(".across_tenants()");
            let is_insert = before.ends_with("insert_into(") && after.starts_with(')');
            let is_join = after
                .strip_prefix(".on(")
                .is_some_and(|rest| joins_same_tenant(take_argument(rest), before, table));
            if !(is_longer_name || is_scoped || is_insert || is_join) {
                found.push(format!("{}: {name} without `.of(tenant)` or `.across_tenants()`", source.path));
            }
        }
    }
    found
}

/// Returns the comparisons of a state with a bare number, in SQL text and in queries of the query builder.
fn find_bare_states(source: &Source) -> Vec<String> {
    let found = find_compared_numbers(&production_code(&source.text));
    found.into_iter().map(|shown| format!("{}: name the state: {shown}", source.path)).collect()
}

/// Returns whether a line of code calls `statement`, and not a function whose name ends with it.
fn runs_text(line: &str) -> bool {
    line.match_indices("statement(").any(|(at, _)| {
        let before = &line[..at];
        !before.ends_with("fn ") && !before.ends_with(|last: char| last.is_alphanumeric() || last == '_')
    })
}

/// Returns the calls that run SQL text in a function without a comment that says why.
fn find_unexplained_text(source: &Source) -> Vec<String> {
    let lines: Vec<&str> = source.text.lines().collect();
    let is_comment = |line: &&str| line.trim_start().starts_with("// ");
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        if line.trim_start().starts_with("//") || !runs_text(line) {
            continue;
        }
        let mut body = lines[..index].iter().rev().take_while(|line| !line.contains("fn "));
        if !body.any(is_comment) {
            found.push(format!("{}:{}: {}", source.path, index + 1, line.trim()));
        }
    }
    found
}

/// Counts the queries of the query builder, and the statements of SQL text.
fn count_queries(sources: &[Source]) -> (usize, usize) {
    let code: Vec<String> = sources.iter().map(|source| production_code(&source.text)).collect();
    let built = code.iter().map(|code| code.matches(" query(").count() + code.matches("(query(").count());
    let text = code.iter().map(|code| code.lines().filter(|line| runs_text(line)).count());
    (built.sum(), text.sum())
}

#[test]
fn every_query_names_its_tenant() {
    let tables = tenant_tables();
    assert!(tables.len() > 20, "{tables:?}");
    assert_none(
        query_sources()
            .iter()
            .flat_map(|source| find_unscoped_tables(source, &tables))
            .collect::<Vec<_>>()
            .as_slice(),
    );
}

#[test]
fn states_in_sql_have_names() {
    assert_none(&query_sources().iter().flat_map(find_bare_states).collect::<Vec<_>>());
}

#[test]
fn sql_text_says_why_it_is_text() {
    let sources = query_sources().into_iter().filter(|source| !source.path.contains("/sql/"));
    assert_none(&sources.flat_map(|source| find_unexplained_text(&source)).collect::<Vec<_>>());
}

/// Arguments of SQL are `$1`, `$2` and so on.
#[test]
fn no_argument_of_sql_has_escaped_braces() {
    let found = query_sources().into_iter().filter(|source| source.text.contains("{{}}"));
    assert_none(&found.map(|source| source.path).collect::<Vec<_>>());
}

#[test]
fn most_queries_use_the_query_builder() {
    let sources: Vec<Source> =
        query_sources().into_iter().filter(|source| !source.path.contains("/sql/")).collect();
    let (built, text) = count_queries(&sources);
    assert!(built * 10 >= (built + text) * 6, "{built} queries of the query builder, {text} of SQL text");
}

#[test]
fn violations_of_query_rules_are_found() {
    let tables = ["files".to_owned(), "versions".to_owned()];
    let unscoped = |text: &str| find_unscoped_tables(&source_file("src/db/x.rs", text), &tables).len();
    assert_eq!(unscoped("fn f() { files::table.filter(files::id.eq(id)); }"), 1);
    assert_eq!(unscoped("fn f() { files::table\n    .of(tenant).filter(files::id.eq(id)); }"), 0);
    assert_eq!(unscoped("fn f() { insert_into(files::table); }"), 0);
    assert_eq!(unscoped("fn f() { join(versions::table.on(versions::file_id.eq(files::id))); }"), 1);
    let join = "join(versions::table.on(same));";
    let same_tenant = "let same = versions::tenant_id.eq(files::tenant_id);";
    assert_eq!(unscoped(&format!("fn f() {{ {same_tenant} {join} }}")), 0);
    assert_eq!(unscoped(&format!("fn f() {{ let same = versions::file_id.eq(files::id); {join} }}")), 1);
    let other = "join(versions::table.on(files::tenant_id.eq(versions::tenant_id).and(x))).filter(y);";
    assert_eq!(unscoped(&format!("fn f() {{ {other} }}")), 0);
    let later = "join(versions::table.on(x)).filter(versions::tenant_id.eq(tenant));";
    assert_eq!(unscoped(&format!("fn f() {{ {later} }}")), 1);
    let bare = |text: &str| find_bare_states(&source_file("src/db/x.rs", text)).len();
    assert_eq!(bare("const X: &str = \"SELECT FROM uploads WHERE state = 1\";"), 1);
    assert_eq!(bare("const X: &str = \"SELECT FROM files WHERE content_state IN (1, 2)\";"), 1);
    assert_eq!(bare("fn f() { uploads::table.filter(uploads::state.eq(1)); }"), 1);
    assert_eq!(bare("fn f() { uploads::table.filter(uploads::state\n    .eq_any([1, 2])); }"), 1);
    assert_eq!(bare("const X: &str = \"SELECT FROM uploads WHERE state = {open}\";"), 0);
    assert_eq!(bare("fn f() { uploads::state.eq(UploadState::Open); files::version.eq(1); }"), 0);
    let unexplained = |text: &str| find_unexplained_text(&source_file("src/db/x.rs", text)).len();
    assert_eq!(unexplained("fn f() {\n    statement(\"x\", \"SELECT\")\n}\n"), 1);
    assert_eq!(
        unexplained(
            "fn f() {\n    // A lateral join.\n    let text = x;\n}\nfn g() {\n    statement(y)\n}\n"
        ),
        1
    );
    assert_eq!(unexplained("fn f() {\n    self.into_statement(x)\n}\n"), 0);
    assert_eq!(unexplained("fn f() {\n    // A lateral join.\n    statement(\"x\", \"SELECT\")\n}\n"), 0);
}
