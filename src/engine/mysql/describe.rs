//! What the catalogue says of a table. The login sees what it has privileges on, and no more.

use std::collections::BTreeMap;

use sqlx::mysql::MySqlConnection;

use super::catalogue::{named, of_table, texts};
use super::identity::identity;
use super::types::{Declared, collation_folds, column_type};
use super::{Facts, errors, visible};
use crate::engine::{EngineError, ErrorKind};
use crate::model::{Column, ColumnType, Filled, Referrer, TableName, TableSchema, UniqueKey};

type Rows = Vec<Vec<Option<String>>>;

fn text(row: &[Option<String>], at: usize) -> &str {
    row.get(at).and_then(Option::as_deref).unwrap_or_default()
}

fn number<T: std::str::FromStr>(row: &[Option<String>], at: usize) -> Option<T> {
    row.get(at)?.as_deref()?.parse().ok()
}

pub(super) async fn tables(
    connection: &mut MySqlConnection,
    facts: &Facts,
    schema: &str,
) -> Result<Vec<TableName>, sqlx::Error> {
    let sql = format!(
        "SELECT table_name FROM information_schema.tables WHERE {} \
         AND table_type IN ('BASE TABLE', 'SYSTEM VERSIONED') ORDER BY CAST(table_name AS BINARY)",
        named(facts, &[("table_schema", schema)])
    );
    let rows = texts(connection, &sql).await?;
    Ok(rows.iter().map(|row| TableName::new(Some(schema), text(row, 0))).collect())
}

/// Views, and what else is no base table. Of sequences nothing is told: they are no rows.
pub(super) async fn left_out(
    connection: &mut MySqlConnection,
    facts: &Facts,
    schema: &str,
) -> Result<Vec<String>, sqlx::Error> {
    let sql = format!(
        "SELECT table_type, table_name FROM information_schema.tables WHERE {} \
         AND table_type NOT IN ('BASE TABLE', 'SYSTEM VERSIONED', 'SEQUENCE') ORDER BY CAST(table_name AS BINARY)",
        named(facts, &[("table_schema", schema)])
    );
    let rows = texts(connection, &sql).await?;
    Ok(rows.iter().map(|row| format!("{} {}", text(row, 0).to_lowercase(), text(row, 1))).collect())
}

pub(super) async fn describe(
    connection: &mut MySqlConnection,
    facts: &Facts,
    schema: &str,
    name: &str,
) -> Result<TableSchema, EngineError> {
    let during = format!("describe {schema}.{name}");
    let failed = |error: sqlx::Error| errors::database(during.as_str(), &error);
    let sql = format!(
        "SELECT table_schema, table_name, table_type, engine, table_rows, create_time \
         FROM information_schema.tables WHERE {}",
        of_table(facts, schema, name)
    );
    let found = texts(connection, &sql).await.map_err(failed)?;
    let exact = found.iter().find(|row| text(row, 0) == schema && text(row, 1) == name);
    let folded = found.first().filter(|_| !facts.case_sensitive);
    let Some(row) = exact.or(folded) else {
        let near = nearest(name, &tables(connection, facts, schema).await.map_err(failed)?);
        return Err(EngineError::new(
            ErrorKind::NoSuchTable,
            during,
            format!("database {schema} has no such table, or the login may not see it"),
        )
        .with_hint(near));
    };
    let (schema, name) = (text(row, 0).to_owned(), text(row, 1).to_owned());
    let of = of_table(facts, &schema, &name);
    let mut described = TableSchema {
        table: TableName::new(Some(&schema), &name),
        is_view: text(row, 2).ends_with("VIEW"),
        columns: Vec::new(),
        keys: Vec::new(),
        estimated_rows: number(row, 4),
        references: Vec::new(),
        referrers: Vec::new(),
        triggers: Vec::new(),
        fires_on_exchange: false,
        notes: Vec::new(),
        identity: None,
        hidden_rows: None,
    };
    if described.is_view {
        described.estimated_rows = None;
    } else if !is_transactional(text(row, 3)) {
        described.notes.push(format!(
            "storage engine {} has no transactions: a scan is no snapshot, and the table cannot be repaired",
            text(row, 3)
        ));
    }
    if text(row, 2) == "SYSTEM VERSIONED" {
        described.notes.push("system-versioned: the current rows are compared, not their history".to_owned());
    }

    let json = if facts.mariadb {
        checked_json(connection, facts, &schema, &name).await.map_err(failed)?
    } else {
        Vec::new()
    };
    let sql = format!(
        "SELECT column_name, data_type, column_type, is_nullable, column_default, extra, numeric_precision, \
         numeric_scale, datetime_precision, collation_name, generation_expression \
         FROM information_schema.columns WHERE {of} ORDER BY ordinal_position"
    );
    let columns = texts(connection, &sql).await.map_err(failed)?;
    described.columns = columns.iter().map(|row| column(row, &json)).collect();

    let sql = format!(
        "SELECT index_name, column_name, sub_part, nullable FROM information_schema.statistics \
         WHERE {of} AND non_unique = 0 ORDER BY index_name, seq_in_index"
    );
    let indexes = texts(connection, &sql).await.map_err(failed)?;
    described.keys = keys(&indexes, &described.columns);
    // A login that may not see a view's words is told nothing of them.
    let view = match described.is_view {
        true => {
            let sql = format!(
                "SELECT view_definition, definer, security_type FROM information_schema.views WHERE {of}"
            );
            texts(connection, &sql).await.map_err(failed)?
        }
        false => Vec::new(),
    };
    let definition = [columns.as_slice(), indexes.as_slice(), view.as_slice()];
    let identity = identity(connection, facts, &schema, &name, text(row, 5), &definition).await;
    described.identity = Some(identity);

    let sql = format!(
        "SELECT DISTINCT referenced_table_schema, referenced_table_name FROM information_schema.key_column_usage \
         WHERE {of} AND referenced_table_name IS NOT NULL ORDER BY 1, 2"
    );
    let rows = texts(connection, &sql).await.map_err(failed)?;
    described.references = rows.iter().map(|row| TableName::new(Some(text(row, 0)), text(row, 1))).collect();

    described.referrers = referrers(connection, facts, &schema, &name).await.map_err(failed)?;
    if !visible::sees_tables_of(connection, &schema).await.map_err(failed)? {
        // A foreign key of such a table may pass on what is done to the rows here.
        let keys = described.keys.iter().flat_map(|key| key.columns.clone()).collect();
        described.referrers.push(Referrer {
            table: TableName::new(None, "(tables that this login may not see)"),
            delete_spreads: true,
            update_spreads: true,
            update_columns: keys,
        });
    }

    let of = named(facts, &[("event_object_schema", &schema), ("event_object_table", &name)]);
    let sql = format!(
        "SELECT trigger_name, event_manipulation FROM information_schema.triggers WHERE {of} ORDER BY 1"
    );
    let rows = texts(connection, &sql).await.map_err(failed)?;
    described.triggers = rows.iter().map(|row| text(row, 0).to_owned()).collect();
    described.fires_on_exchange = rows.iter().any(|row| text(row, 1) != "UPDATE");
    Ok(described)
}

/// The foreign keys that point here.
pub(super) async fn referrers(
    connection: &mut MySqlConnection,
    facts: &Facts,
    schema: &str,
    name: &str,
) -> Result<Vec<Referrer>, sqlx::Error> {
    let of = named(facts, &[("unique_constraint_schema", schema), ("referenced_table_name", name)]);
    let sql = format!(
        "SELECT constraint_schema, table_name, delete_rule, update_rule, constraint_name \
         FROM information_schema.referential_constraints WHERE {of} ORDER BY 1, 2, 3, 4"
    );
    let rows = texts(connection, &sql).await?;
    let mut found: BTreeMap<TableName, Referrer> = BTreeMap::new();
    let of = named(facts, &[("referenced_table_schema", schema), ("referenced_table_name", name)]);
    let sql = format!(
        "SELECT constraint_schema, table_name, constraint_name, referenced_column_name \
         FROM information_schema.key_column_usage WHERE {of} ORDER BY 1, 2, 3, 4"
    );
    let columns = match rows.iter().any(|row| spreads(text(row, 3))) {
        true => texts(connection, &sql).await?,
        false => Vec::new(),
    };
    for row in &rows {
        let table = TableName::new(Some(text(row, 0)), text(row, 1));
        let new = Referrer {
            table: table.clone(),
            delete_spreads: false,
            update_spreads: false,
            update_columns: Vec::new(),
        };
        let referrer = found.entry(table).or_insert(new);
        referrer.delete_spreads |= spreads(text(row, 2));
        if spreads(text(row, 3)) {
            referrer.update_spreads = true;
            let of = |column: &&Vec<Option<String>>| {
                [(0, 0), (1, 1), (4, 2)]
                    .iter()
                    .all(|(mine, theirs)| text(row, *mine) == text(column, *theirs))
            };
            referrer
                .update_columns
                .extend(columns.iter().filter(of).map(|column| text(column, 3).to_owned()));
        }
    }
    Ok(found.into_values().collect())
}

/// Whether a foreign key's rule deletes or rewrites the rows that refer.
fn spreads(rule: &str) -> bool {
    matches!(rule, "CASCADE" | "SET NULL" | "SET DEFAULT")
}

pub(super) fn is_transactional(engine: &str) -> bool {
    ["InnoDB", "ROCKSDB", "MyRocks", "TokuDB", "XtraDB"].iter().any(|name| name.eq_ignore_ascii_case(engine))
}

/// The expression computes the column, whatever the version calls it. (MySQL's DEFAULT_GENERATED is a default.)
pub(super) fn is_generated(extra: &str, expression: &str) -> bool {
    let extra = extra.to_ascii_uppercase();
    !expression.is_empty()
        || ["VIRTUAL", "STORED GENERATED", "PERSISTENT"].iter().any(|word| extra.contains(word))
}

fn column(row: &[Option<String>], json: &[String]) -> Column {
    let name = text(row, 0).to_owned();
    let extra = text(row, 5);
    let ty = column_type(&Declared {
        data_type: text(row, 1),
        column_type: text(row, 2),
        precision: number(row, 6),
        scale: number(row, 7),
        digits: number(row, 8).unwrap_or(0),
        checked_json: json.contains(&name),
    });
    let collation = row.get(9).cloned().flatten();
    let textual = matches!(ty, ColumnType::Text { .. } | ColumnType::Json);
    // An enum's labels are told apart when it is declared, and JSON is not compared by its collation.
    let folds = matches!(ty, ColumnType::Text { .. }) && !matches!(text(row, 1), "enum" | "set");
    let padded = ty == ColumnType::Text { padded: true };
    let default = row.get(4).and_then(Option::as_deref).filter(|value| *value != "NULL");
    Column {
        declared: match collation.as_deref().filter(|_| textual && ty != ColumnType::Json) {
            Some(name) => format!("{} COLLATE {name}", text(row, 2)),
            None => text(row, 2).to_owned(),
        },
        nullable: text(row, 3) == "YES",
        filled: if is_generated(extra, text(row, 10)) { Filled::Generated } else { Filled::ByWriter },
        has_default: default.is_some() || extra.contains("auto_increment"),
        collation_folds: folds && collation.as_deref().is_some_and(|name| collation_folds(name, padded)),
        collation: collation.filter(|_| textual),
        name,
        ty,
    }
}

/// The columns that MariaDB keeps as text with the check that it is JSON.
async fn checked_json(
    connection: &mut MySqlConnection,
    facts: &Facts,
    schema: &str,
    name: &str,
) -> Result<Vec<String>, sqlx::Error> {
    let of = named(facts, &[("constraint_schema", schema), ("table_name", name)]);
    let sql = format!("SELECT check_clause FROM information_schema.check_constraints WHERE {of}");
    let rows = texts(connection, &sql).await?;
    let name = |row: &Vec<Option<String>>| {
        let inner = text(row, 0).trim().strip_prefix("json_valid(`")?.strip_suffix("`)")?.replace("``", "`");
        Some(inner)
    };
    Ok(rows.iter().filter_map(name).collect())
}

/// Unique indexes, the primary key first. One over a prefix or an expression does not identify.
fn keys(rows: &Rows, columns: &[Column]) -> Vec<UniqueKey> {
    let mut keys: Vec<UniqueKey> = Vec::new();
    for row in rows {
        let (index, name) = (text(row, 0), text(row, 1));
        let whole = row.get(2).is_some_and(Option::is_none) && !name.is_empty();
        let not_null = columns.iter().any(|column| column.name == name && !column.nullable);
        let identifies = whole && not_null;
        match keys.last_mut().filter(|key| key.name == index) {
            Some(key) => {
                key.columns.push(name.to_owned());
                key.identifies &= identifies;
            }
            None => keys.push(UniqueKey {
                name: index.to_owned(),
                primary: index == "PRIMARY",
                columns: vec![name.to_owned()],
                identifies,
            }),
        }
    }
    keys.sort_by_key(|key| !key.primary);
    keys
}

fn nearest(name: &str, tables: &[TableName]) -> String {
    let mut scored: Vec<(f64, &str)> = tables
        .iter()
        .map(|table| {
            (strsim::jaro_winkler(&name.to_lowercase(), &table.name.to_lowercase()), table.name.as_str())
        })
        .filter(|(score, _)| *score > 0.75)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    let near: Vec<&str> = scored.into_iter().take(3).map(|(_, name)| name).collect();
    if near.is_empty() {
        "check the table's name and the login's privileges".to_owned()
    } else {
        format!("did you mean {}?", near.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_columns_and_defaults_are_told_apart() {
        assert!(is_generated("VIRTUAL GENERATED", "`a` + 1"));
        assert!(is_generated("STORED GENERATED", ""));
        assert!(is_generated("PERSISTENT", ""));
        assert!(!is_generated("DEFAULT_GENERATED on update CURRENT_TIMESTAMP", ""));
        assert!(!is_generated("auto_increment", ""));
    }

    #[test]
    fn near_names() {
        let tables = ["orders", "order_items", "users"].map(|name| TableName::new(Some("s"), name));
        assert!(nearest("order", &tables).starts_with("did you mean order"));
        assert!(nearest("xyz", &tables).starts_with("check"));
    }
}
