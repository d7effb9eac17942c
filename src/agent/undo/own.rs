//! The target's table by its own types and with all its columns: what must be kept to put a row back exactly as it was,
//! where the plan compares fewer columns, or compares them more coarsely.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::canonical::{DecodeError, split_cells};
use crate::model::comparison::{Side, comparison_for};
use crate::model::plan::PlanColumn;
use crate::model::{
    CanonicalRow, Column, ColumnCoverage, ColumnType, ComparisonType, EngineKind, Filled, Plan, Role,
    ServerInfo, TableAccess, TableName, TableSchema, Wishes,
};

/// How rows are kept: as the database itself holds them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct WholePlan {
    /// The run's key, the columns of the run's plan in its order, then the others. `None`: the run's plan is that.
    plan: Option<Plan>,
    /// Columns of the key as they are stored, where the key says only what they mean.
    spelled: Vec<PlanColumn>,
    /// There are columns that the run does not compare.
    pub(crate) uncompared: bool,
    /// Columns that have no form to be kept in.
    pub(crate) not_kept: Vec<String>,
    /// Columns that are kept by their text, of which the server's conversion may not give every byte back.
    pub(crate) inexact: Vec<String>,
}

impl WholePlan {
    pub(crate) fn of(plan: &Plan, schema: &TableSchema, server: &ServerInfo) -> Self {
        let compared = |name: &str| plan.columns.iter().any(|column| column.target == name);
        // What the database computes from the other columns is theirs, and neither kept nor put back.
        let computed = |column: &Column| column.filled == Filled::Generated && !compared(&column.name);
        let names = |wanted: &dyn Fn(&Column) -> bool| -> Vec<String> {
            let wanted = schema.columns.iter().filter(|column| wanted(column));
            wanted.map(|column| column.name.clone()).collect()
        };
        let mut whole = Self {
            plan: None,
            spelled: Vec::new(),
            uncompared: schema.columns.iter().any(|column| !compared(&column.name) && !computed(column)),
            not_kept: names(&|column| {
                !has_form(column, server) && !compared(&column.name) && !computed(column)
            }),
            inexact: names(&|column| is_inexact(column, server.engine) && !computed(column)),
        };
        let (key, rest) = plan.columns.split_at(plan.key_len.min(plan.columns.len()));
        let wishes = Wishes {
            key: key.iter().map(|column| column.target.clone()).collect(),
            exclude: [whole.not_kept.clone(), names(&computed)].concat(),
            as_text: names(&|column| match has_form(column, server) {
                true => is_kept_as_text(&column.ty, server.engine),
                // It is compared by its text, or not at all.
                false => compared(&column.name),
            }),
            ..Wishes::default()
        };
        let Ok(mut own) = Plan::agree((schema, server), (schema, server), &wishes) else {
            // What is compared is kept, at least.
            whole.not_kept = names(&|column| !compared(&column.name) && !computed(column));
            return whole;
        };
        if server.engine == EngineKind::Sqlite {
            let free = own.columns.iter_mut().filter(|column| has_no_affinity(&column.target_type));
            free.for_each(|column| column.comparison = ComparisonType::Stored);
        }
        let position =
            |name: &str| rest.iter().position(|column| column.target == name).unwrap_or(rest.len());
        if let Some(columns) = own.columns.get_mut(plan.key_len..) {
            columns.sort_by_key(|column| position(&column.target));
        }
        // The same keys: a row is found by the key that was compared. How it is spelled is read beside it.
        for (mine, theirs) in own.columns.iter_mut().zip(key) {
            let stored = std::mem::replace(mine, theirs.clone());
            if stored.comparison != mine.comparison || stored.as_text != mine.as_text {
                whole.spelled.push(stored);
            }
        }
        (own.warnings, own.coverage) = (Vec::new(), ColumnCoverage::default());
        if access_of(&own).columns != access_of(plan).columns {
            whole.plan = Some(own);
        }
        whole
    }

    pub(super) fn lies_at(&mut self, table: &TableName) {
        if let Some(plan) = &mut self.plan {
            plan.target = table.clone();
        }
    }

    /// Columns of the key of which one meaning has several spellings that a column may hold.
    pub(crate) fn spelled_keys(&self) -> Vec<String> {
        let integer = |column: &&PlanColumn| !matches!(column.target_type, ColumnType::Int { .. });
        self.spelled.iter().filter(integer).map(|column| column.target.clone()).collect()
    }
}

/// The column has a sound form by its own type.
fn has_form(column: &Column, server: &ServerInfo) -> bool {
    let dynamic = server.engine == EngineKind::Sqlite;
    let side = || Side { ty: &column.ty, rounding: server.rounding, dynamic };
    comparison_for(side(), side(), false).is_ok()
}

/// Types of which the canonical form drops what the database keeps, and their text does not: the scale of a numeric, the
/// sign of a zero, and of JSON the order and number of members and the spelling of numbers.
fn is_kept_as_text(ty: &ColumnType, engine: EngineKind) -> bool {
    match (engine, ty) {
        (EngineKind::Postgres, ColumnType::Array(inner)) => is_kept_as_text(inner, engine),
        (
            EngineKind::Postgres,
            ColumnType::Json | ColumnType::Float { .. } | ColumnType::Decimal { scale: None, .. },
        )
        | (EngineKind::MySql, ColumnType::Json) => true,
        _ => false,
    }
}

/// SQLite keeps a negative zero where the declaration makes no number of it.
fn has_no_affinity(ty: &ColumnType) -> bool {
    matches!(ty, ColumnType::Unsupported(_) | ColumnType::Bytes)
}

/// Character sets of MySQL of which several characters become one of Unicode.
const AMBIGUOUS: [&str; 9] =
    ["big5", "cp932", "eucjpms", "euckr", "gb18030", "gb2312", "gbk", "sjis", "ujis"];

fn is_inexact(column: &Column, engine: EngineKind) -> bool {
    match engine {
        EngineKind::MySql => column.declared.rsplit_once(" COLLATE ").is_some_and(|(_, collation)| {
            collation.split('_').next().is_some_and(|charset| AMBIGUOUS.contains(&charset))
        }),
        // A char(n) without n keeps trailing blanks, which its text does not have.
        EngineKind::Postgres => column.declared == "bpchar",
        EngineKind::Sqlite => false,
    }
}

/// Rows as they are kept, of one table.
#[derive(Debug, Clone)]
pub(crate) struct OwnAccess {
    plan: WholePlan,
    /// What rows are written with.
    write: Arc<TableAccess>,
    /// The same, and the key as it is stored.
    read: Arc<TableAccess>,
}

impl OwnAccess {
    /// `by_plan`: of the run's plan.
    pub(crate) fn new(plan: WholePlan, by_plan: &Plan) -> Self {
        let write = access_of(plan.plan.as_ref().unwrap_or(by_plan));
        let mut read = TableAccess::clone(&write);
        if !plan.spelled.is_empty() {
            let spelled = Plan { columns: plan.spelled.clone(), key_len: 0, ..by_plan.clone() };
            read.columns.extend(spelled.access(Role::Target).columns);
        }
        let read = if read == *write { Arc::clone(&write) } else { Arc::new(read) };
        Self { plan, write, read }
    }

    pub(crate) fn whole(&self) -> &WholePlan {
        &self.plan
    }

    pub(crate) fn writing(&self) -> &Arc<TableAccess> {
        &self.write
    }

    /// What a row is read whole with; its cells are those that are written, and then the key's spelling.
    pub(crate) fn reading(&self) -> &Arc<TableAccess> {
        &self.read
    }

    /// The run's own rows hold all that is to be kept.
    pub(crate) fn is_plans(&self) -> bool {
        self.plan.plan.is_none() && self.plan.spelled.is_empty()
    }

    /// The part of a row that is written.
    pub(crate) fn written(&self, row: &CanonicalRow) -> Result<CanonicalRow, DecodeError> {
        if self.read.columns.len() == self.write.columns.len() {
            return Ok(row.clone());
        }
        let cells = split_cells(row.as_bytes())?;
        let cells = cells.iter().take(self.write.row_columns().len());
        Ok(CanonicalRow::new(cells.copied().collect::<Vec<_>>().concat()))
    }

    /// The first column in which two whole rows differ.
    pub(crate) fn differing(&self, a: &CanonicalRow, b: &CanonicalRow) -> Option<&str> {
        let (a, b) = (split_cells(a.as_bytes()).ok()?, split_cells(b.as_bytes()).ok()?);
        let mut columns = self.read.row_columns().iter().enumerate();
        columns.find(|(at, _)| a.get(*at) != b.get(*at)).map(|(_, column)| column.name.as_str())
    }
}

/// One side of a plan without the user's condition: a row is a row, whatever it was compared for.
pub(crate) fn access_of(plan: &Plan) -> Arc<TableAccess> {
    Arc::new(TableAccess { filter: None, ..plan.access(Role::Target) })
}

/// The row to put back over the one that is there: the columns that were compared, as they were; the others, as they are.
pub(crate) fn merged(
    compared: usize,
    was: &CanonicalRow,
    is: &CanonicalRow,
) -> Result<CanonicalRow, DecodeError> {
    let (was, is) = (split_cells(was.as_bytes())?, split_cells(is.as_bytes())?);
    let cells = was.iter().take(compared).chain(is.iter().skip(compared));
    Ok(CanonicalRow::new(cells.copied().collect::<Vec<_>>().concat()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Rounding, UniqueKey};

    fn column(name: &str, ty: ColumnType, declared: &str) -> Column {
        Column {
            name: name.into(),
            ty,
            declared: declared.into(),
            nullable: name != "id",
            filled: Filled::ByWriter,
            has_default: false,
            collation: None,
            collation_folds: false,
        }
    }

    fn schema(id: ColumnType, others: Vec<Column>) -> TableSchema {
        let mut columns = vec![column("id", id, "key")];
        columns.extend(others);
        TableSchema {
            table: TableName::new(None, "t"),
            is_view: false,
            columns,
            keys: vec![UniqueKey {
                name: "k".into(),
                primary: true,
                columns: vec!["id".into()],
                identifies: true,
            }],
            estimated_rows: None,
            references: Vec::new(),
            referrers: Vec::new(),
            triggers: Vec::new(),
            fires_on_exchange: false,
            notes: Vec::new(),
            identity: None,
            hidden_rows: None,
        }
    }

    fn server(engine: EngineKind) -> ServerInfo {
        ServerInfo { engine, product: String::new(), rounding: Rounding::HalfUp }
    }

    fn int() -> ColumnType {
        ColumnType::Int { bits: 32, signed: true }
    }

    /// Of a run that compares these columns alone.
    fn whole(schema: &TableSchema, engine: EngineKind, columns: &[&str]) -> (OwnAccess, Plan) {
        let wishes =
            Wishes { columns: columns.iter().map(|name| (*name).to_owned()).collect(), ..Wishes::default() };
        let server = server(engine);
        let plan = Plan::agree((schema, &server), (schema, &server), &wishes).unwrap();
        (OwnAccess::new(WholePlan::of(&plan, schema, &server), &plan), plan)
    }

    fn forms(access: &TableAccess) -> Vec<(&str, bool)> {
        access.columns.iter().map(|column| (column.name.as_str(), column.as_text)).collect()
    }

    #[test]
    fn a_column_without_a_form_costs_no_other() {
        let schema = schema(
            int(),
            vec![
                column("v", int(), "int"),
                column("note", ColumnType::Text { padded: false }, "text"),
                column("odd", ColumnType::Unsupported("odd".into()), "odd"),
            ],
        );
        let (own, _) = whole(&schema, EngineKind::MySql, &["v"]);
        assert_eq!(forms(own.writing()), [("id", false), ("v", false), ("note", false)]);
        assert_eq!((own.whole().not_kept.as_slice(), own.is_plans()), (&["odd".to_owned()][..], false));
    }

    #[test]
    fn what_the_canonical_form_drops_is_kept_as_the_database_writes_it() {
        let columns = || {
            vec![
                column("price", ColumnType::Decimal { precision: Some(9), scale: Some(2) }, "numeric(9,2)"),
                column("free", ColumnType::Decimal { precision: None, scale: None }, "numeric"),
                column("real", ColumnType::Float { bits: 64 }, "double precision"),
                column("json", ColumnType::Json, "json"),
                column("list", ColumnType::Array(Box::new(ColumnType::Json)), "json[]"),
                column("ints", ColumnType::Array(Box::new(int())), "int[]"),
            ]
        };
        let table = schema(ColumnType::Decimal { precision: None, scale: None }, columns());
        let (own, plan) = whole(&table, EngineKind::Postgres, &["json", "price"]);
        let expected = [
            // The key as it was compared; its spelling stands at the end, and is not written.
            ("id", false),
            ("price", false),
            ("json", true),
            ("free", true),
            ("real", true),
            ("list", true),
            ("ints", false),
        ];
        assert_eq!(forms(own.writing()), expected);
        assert_eq!(forms(own.reading()), [&expected[..], &[("id", true)]].concat());
        let compared: Vec<&str> = plan.columns.iter().map(|column| column.target.as_str()).collect();
        assert_eq!(compared, ["id", "price", "json"]);
        let plain = schema(int(), columns().drain(..1).collect());
        assert!(whole(&plain, EngineKind::Postgres, &[]).0.is_plans());
    }

    #[test]
    fn columns_that_were_not_compared_stay_as_they_are() {
        // NULL, and cells of one and two bytes.
        let was = CanonicalRow::new([3, b'a', 0, 3, b'x']);
        let is = CanonicalRow::new([5, b'b', b'b', 3, b'c', 0]);
        assert_eq!(merged(2, &was, &is), Ok(CanonicalRow::new([3, b'a', 0, 0])));
        assert_eq!(merged(0, &was, &is), Ok(is.clone()));
        assert_eq!(merged(3, &was, &is), Ok(was.clone()));
        assert!(merged(1, &was, &CanonicalRow::new([9])).is_err());
    }
}
