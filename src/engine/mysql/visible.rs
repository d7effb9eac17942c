//! What a login of MySQL may see of a schema: tables, and so foreign keys, and triggers that are hidden from it may be there all the
//! same.

use sqlx::mysql::MySqlConnection;

use super::catalogue::texts;

/// Whether this login sees every table of the schema, and so every foreign key of one: it has some right on all of them.
pub(super) async fn sees_tables_of(
    connection: &mut MySqlConnection,
    schema: &str,
) -> Result<bool, sqlx::Error> {
    Ok(all_grants(connection).await?.iter().any(|grant| covers(grant, schema)))
}

/// What this login was granted, and what its roles were.
async fn all_grants(connection: &mut MySqlConnection) -> Result<Vec<String>, sqlx::Error> {
    let mut grants: Vec<String> = own_grants(connection, "SHOW GRANTS").await?;
    // MySQL lists what active roles may only where it is asked for.
    let role = |grant: &String| {
        let rest = grant.strip_prefix("GRANT ").filter(|_| !grant.contains(" ON "))?;
        rest.split_once(" TO ").map(|(roles, _)| roles.to_owned())
    };
    let roles: Vec<String> = grants.iter().filter_map(role).collect();
    if !roles.is_empty() {
        let sql = format!("SHOW GRANTS FOR CURRENT_USER() USING {}", roles.join(", "));
        // MariaDB has no such statement, and lists them already.
        grants.extend(own_grants(connection, &sql).await.unwrap_or_default());
    }
    Ok(grants)
}

/// Whether this login sees every trigger of the schema's tables.
pub(super) async fn sees_triggers_of(
    connection: &mut MySqlConnection,
    schema: &str,
) -> Result<bool, sqlx::Error> {
    let may = |grant: &String| {
        let rights = grant.split(" ON ").next().unwrap_or_default().to_uppercase();
        (rights.contains("ALL PRIVILEGES") || rights.contains("TRIGGER")) && covers(grant, schema)
    };
    Ok(all_grants(connection).await?.iter().any(may))
}

async fn own_grants(connection: &mut MySqlConnection, sql: &str) -> Result<Vec<String>, sqlx::Error> {
    Ok(texts(connection, sql).await?.into_iter().flatten().flatten().collect())
}

/// `GRANT SELECT ON `shop`.* TO ...`: some right on all tables of a schema whose name the pattern takes.
fn covers(grant: &str, schema: &str) -> bool {
    let Some((rights, rest)) = grant.strip_prefix("GRANT ").and_then(|rest| rest.split_once(" ON ")) else {
        return false;
    };
    let Some((place, _)) = rest.split_once(" TO ") else { return false };
    if rights.trim().eq_ignore_ascii_case("USAGE") || rights.trim().eq_ignore_ascii_case("PROXY") {
        return false;
    }
    let Some(pattern) = place.strip_suffix(".*") else { return false };
    let pattern = pattern.trim_matches('`').replace("``", "`");
    pattern == "*" || takes(pattern.as_bytes(), schema.as_bytes())
}

/// `LIKE`, with a backslash before what stands for itself.
fn takes(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        ([b'%', rest @ ..], _) => {
            takes(rest, text) || text.split_first().is_some_and(|(_, behind)| takes(pattern, behind))
        }
        ([b'\\', one, rest @ ..], [first, behind @ ..]) => one == first && takes(rest, behind),
        ([b'_', rest @ ..], [_, behind @ ..]) => takes(rest, behind),
        ([one, rest @ ..], [first, behind @ ..]) => one.eq_ignore_ascii_case(first) && takes(rest, behind),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::covers;

    #[test]
    fn grants_on_all_tables_of_a_schema_are_told_from_others() {
        for (grant, is) in [
            ("GRANT ALL PRIVILEGES ON *.* TO `u`@`%`", true),
            ("GRANT USAGE ON *.* TO `u`@`%` IDENTIFIED BY PASSWORD '*0'", false),
            ("GRANT SELECT, INSERT ON `shop`.* TO `u`@`%`", true),
            ("GRANT SELECT ON `sh%`.* TO `u`@`%`", true),
            ("GRANT SELECT ON `sh\\_p`.* TO `u`@`%`", false),
            ("GRANT SELECT ON `other`.* TO `u`@`%`", false),
            ("GRANT SELECT, DELETE ON `shop`.`t` TO `u`@`%`", false),
            ("GRANT `role` TO `u`@`%`", false),
        ] {
            assert_eq!(covers(grant, "shop"), is, "{grant}");
        }
        assert!(covers("GRANT SELECT ON `a\\_b`.* TO `u`@`%`", "a_b"));
    }
}
