//! Conditional writes: lock, read again, compare, write what still holds; one transaction.

use std::collections::{HashMap, HashSet};

use sqlx::Connection as _;
use sqlx::mysql::{MySqlArguments, MySqlConnection};

use super::bind::bind;
use super::catalogue::{of_table, texts};
use super::describe::{is_generated, referrers};
use super::keep::keep_stored;
use super::keys::Asked;
use super::locate::{self, Address, Found};
use super::session::execute;
use super::statement::{differing, is_writable};
use super::trigger_settings::TriggerSettings;
use super::writer::{Pending, Place, Writer};
use super::{Facts, errors, fetch, read_back};
use crate::engine::read_back::EXCHANGE_NEEDS;
use crate::engine::{EngineError, ErrorKind};
use crate::model::canonical::{decode_key, decode_row};
use crate::model::{
    CanonicalRow, Change, ChangeOutcome, Key, Operation, Rejection, RejectionKind, TableAccess, fail_point,
};

/// A rollback is waited for so long.
const ROLLBACK_MAX: std::time::Duration = std::time::Duration::from_secs(5);

pub(super) async fn apply(
    connection: &mut MySqlConnection,
    facts: &Facts,
    access: &TableAccess,
    changes: &[Change],
    lock_waits: &str,
) -> Result<Vec<ChangeOutcome>, EngineError> {
    let during = format!("write {}", access.table);
    let failed = |error: sqlx::Error| errors::database(during.as_str(), &error);
    let beyond = Beyond::of(connection, facts, access).await.map_err(failed)?;
    let reads_back =
        read_back::may_differ(connection, facts, &beyond.schema, access).await.map_err(failed)?;
    settle_isolation(connection, facts, lock_waits).await.map_err(failed)?;
    // The guard rolls back when it is dropped, also where this future is.
    let mut transaction = connection.begin().await.map_err(failed)?;
    let written = async {
        let decision =
            Decision { access, changes, during: &during, packet_max: facts.packet_max, whole: false };
        let (pending, outcomes) = decision.lock_and_compare(&mut transaction).await?;
        let reads_back = reads_back || pending.iter().any(|ready| ready.writes_stored_bytes(access));
        let mut writer = Writer {
            connection: &mut transaction,
            access,
            changes,
            during: &during,
            packet_max: facts.packet_max,
            kept: beyond.set_on_update,
            reads_back,
            outcomes,
            settings: TriggerSettings::default(),
        };
        writer.write_all(pending).await?;
        Ok::<_, EngineError>(writer.outcomes)
    };
    let outcomes = match written.await {
        Ok(outcomes) => outcomes,
        Err(error) => {
            // Now, and not when the connection is used next: the next attempt may have another, and would wait for these locks.
            let _ = tokio::time::timeout(ROLLBACK_MAX, transaction.rollback()).await;
            return Err(error);
        }
    };
    fail_point();
    transaction.commit().await.map_err(failed)?;
    fail_point();
    Ok(outcomes.into_iter().map(|outcome| outcome.unwrap_or(ChangeOutcome::Stale)).collect())
}

pub(super) async fn replace(
    connection: &mut MySqlConnection,
    facts: &Facts,
    access: &TableAccess,
    changes: &[Change],
    lock_waits: &str,
) -> Result<Vec<ChangeOutcome>, EngineError> {
    let during = format!("write {}", access.table);
    let failed = |error: sqlx::Error| errors::database(during.as_str(), &error);
    let refused = |kind, reason: String| {
        let rejection = Rejection { kind, reason };
        Ok(vec![ChangeOutcome::Failed(rejection); changes.len()])
    };
    let beyond = Beyond::of(connection, facts, access).await.map_err(failed)?;
    if !beyond.others.is_empty() {
        return refused(
            RejectionKind::Other,
            format!("a replaced row would lose columns that are not compared: {}", beyond.others.join(", ")),
        );
    }
    let spreading = referrers(connection, facts, &beyond.schema, &access.table.name).await.map_err(failed)?;
    if let Some(referrer) = spreading.iter().find(|referrer| referrer.delete_spreads) {
        return refused(
            RejectionKind::ForeignKey,
            format!("replacing a row would delete or change rows of {}", referrer.table),
        );
    }
    let updates = changes.iter().any(|change| change.operation() == Operation::Update);
    if updates
        && read_back::may_fire_on_exchange(connection, facts, &beyond.schema, access).await.map_err(failed)?
    {
        let reason = "rows exchange unique values, and triggers may fire when they are deleted and inserted (a login without TRIGGER does not see them)";
        return refused(RejectionKind::Unique, reason.to_owned());
    }
    let reads_back =
        read_back::may_differ(connection, facts, &beyond.schema, access).await.map_err(failed)?;
    settle_isolation(connection, facts, lock_waits).await.map_err(failed)?;
    let mut transaction = connection.begin().await.map_err(failed)?;
    let decision = Decision { access, changes, during: &during, packet_max: facts.packet_max, whole: true };
    let (mut pending, outcomes) = decision.lock_and_compare(&mut transaction).await?;
    let unwritten = |outcome: &Option<ChangeOutcome>| {
        !matches!(outcome, None | Some(ChangeOutcome::Written | ChangeOutcome::Already))
    };
    if outcomes.iter().any(unwritten) {
        // All or nothing: what still held goes round again with the rest.
        let whole = |outcome| match outcome {
            Some(found @ ChangeOutcome::Failed(_)) => found,
            _ => ChangeOutcome::Stale,
        };
        return Ok(outcomes.into_iter().map(whole).collect());
    }
    keep_stored(&mut transaction, access, changes, &mut pending, &during).await?;
    let reads_back = reads_back || pending.iter().any(|ready| ready.writes_stored_bytes(access));
    let mut writer = Writer {
        connection: &mut transaction,
        access,
        changes,
        during: &during,
        packet_max: facts.packet_max,
        kept: Vec::new(),
        reads_back,
        outcomes,
        settings: TriggerSettings::default(),
    };
    if let Err(error) = writer.exchange(&pending).await {
        // The connection is used again.
        writer.have_settings_changed().await?;
        return match errors::rejection(&error) {
            Some(rejection) => refused(rejection.kind, rejection.reason),
            None => match failed(error) {
                lacking if lacking.kind == ErrorKind::Permission => {
                    refused(RejectionKind::Unique, EXCHANGE_NEEDS.to_owned())
                }
                error => Err(error),
            },
        };
    }
    if let Some(rejection) = writer.exchanged_otherwise().await? {
        return refused(rejection.kind, rejection.reason);
    }
    fail_point();
    transaction.commit().await.map_err(failed)?;
    fail_point();
    Ok(vec![ChangeOutcome::Written; changes.len()])
}

/// READ COMMITTED locks rows and not the gaps between them, so that repairing does not get in the way of inserts; an
/// insert that comes between is found by its duplicate key. Not where the log of statements forbids it.
async fn settle_isolation(
    connection: &mut MySqlConnection,
    facts: &Facts,
    lock_waits: &str,
) -> Result<(), sqlx::Error> {
    execute(connection, lock_waits).await?;
    if facts.logs_statements {
        return Ok(());
    }
    execute(connection, "SET TRANSACTION ISOLATION LEVEL READ COMMITTED").await
}

/// The columns that the server sets in an update that does not.
pub(super) async fn set_on_update(
    connection: &mut MySqlConnection,
    facts: &Facts,
    access: &TableAccess,
) -> Result<Vec<String>, sqlx::Error> {
    Beyond::of(connection, facts, access).await.map(|beyond| beyond.set_on_update)
}

/// What the catalogue says of the table's columns that is not in the access.
struct Beyond {
    schema: String,
    /// Columns that the access leaves out, and are not generated.
    others: Vec<String>,
    /// Columns that the server sets in an update that does not.
    set_on_update: Vec<String>,
}

impl Beyond {
    async fn of(
        connection: &mut MySqlConnection,
        facts: &Facts,
        access: &TableAccess,
    ) -> Result<Self, sqlx::Error> {
        let schema = access.table.schema.as_deref().or(facts.database.as_deref()).unwrap_or_default();
        let of = of_table(facts, schema, &access.table.name);
        let sql = format!(
            "SELECT column_name, extra, generation_expression FROM information_schema.columns WHERE {of}"
        );
        let rows = texts(connection, &sql).await?;
        let mut beyond = Self { schema: schema.to_owned(), others: Vec::new(), set_on_update: Vec::new() };
        for row in &rows {
            let text = |at: usize| row.get(at).and_then(Option::as_deref).unwrap_or_default();
            if is_generated(text(1), text(2)) {
                continue;
            }
            if text(1).to_ascii_lowercase().contains("on update") {
                beyond.set_on_update.push(text(0).to_owned());
            }
            if !access.columns.iter().any(|column| column.name == text(0)) {
                beyond.others.push(text(0).to_owned());
            }
        }
        Ok(beyond)
    }
}

/// Decides what is stale, what is done already and what is to be written.
struct Decision<'a> {
    access: &'a TableAccess,
    changes: &'a [Change],
    during: &'a str,
    packet_max: usize,
    /// Rows are written whole, and not the columns that differ alone.
    whole: bool,
}

/// The row of a key as it is now.
enum Now {
    Row(CanonicalRow, Place),
    /// Several rows hold the key, by its meaning.
    Several,
}

impl Decision<'_> {
    async fn lock_and_compare(
        &self,
        connection: &mut MySqlConnection,
    ) -> Result<(Vec<Pending>, Vec<Option<ChangeOutcome>>), EngineError> {
        let asked = self.changes.iter().map(|change| Asked::new(self.access, &change.key, self.during));
        let asked = asked.collect::<Result<Vec<_>, _>>()?;
        let current = self.current(connection, &asked).await?;
        let mut seen = HashSet::new();
        let (mut pending, mut outcomes) = (Vec::new(), Vec::with_capacity(self.changes.len()));
        for (at, (change, asked)) in self.changes.iter().zip(&asked).enumerate() {
            let now = current.get(change.key.as_bytes());
            let row = match now {
                Some(Now::Row(row, _)) => Some(row),
                Some(Now::Several) | None => None,
            };
            let outcome = if !seen.insert(change.key.as_bytes()) {
                Some(ChangeOutcome::Stale)
            } else if matches!(now, Some(Now::Several)) {
                Some(ChangeOutcome::Failed(self.several()))
            } else if (change.before.is_some() || change.after.is_some()) && row == change.after.as_ref() {
                Some(ChangeOutcome::Already)
            } else if row != change.before.as_ref() || (change.before.is_none() && change.after.is_none()) {
                Some(ChangeOutcome::Stale)
            } else {
                let place = match now {
                    Some(Now::Row(_, place)) => Some(place),
                    _ => None,
                };
                match self.prepare(at, change, asked, place)? {
                    Ok(ready) => {
                        pending.push(ready);
                        None
                    }
                    Err(rejection) => Some(ChangeOutcome::Failed(rejection)),
                }
            };
            outcomes.push(outcome);
        }
        Ok((pending, outcomes))
    }

    /// The rows of these keys, locked. A key that a lookup need not find, and did not, is looked for by its meaning.
    async fn current<'k>(
        &self,
        connection: &mut MySqlConnection,
        asked: &[Asked<'k>],
    ) -> Result<HashMap<&'k [u8], Now>, EngineError> {
        let by_key: HashMap<&[u8], &Asked<'k>> =
            asked.iter().map(|asked| (asked.key.as_bytes(), asked)).collect();
        let mut current: HashMap<&'k [u8], Now> = HashMap::with_capacity(asked.len());
        for row in fetch::locked(connection, self.access, asked).await? {
            let Some(asked) = by_key.get(row.key.as_bytes()) else { continue };
            let place = match asked.usual.as_ref().filter(|_| asked.others.is_empty()) {
                Some(usual) => Place::Key(usual.clone()),
                None => Place::Spellings(asked.spellings().cloned().collect()),
            };
            let now = match current.contains_key(asked.key.as_bytes()) {
                true => Now::Several,
                false => Now::Row(row.row, place),
            };
            current.insert(asked.key.as_bytes(), now);
        }
        let lost: Vec<&Asked<'k>> = asked
            .iter()
            .filter(|asked| !asked.exact && !current.contains_key(asked.key.as_bytes()))
            .collect();
        if lost.is_empty() {
            return Ok(current);
        }
        for (key, found) in locate::by_meaning(connection, self.access, &lost, self.during).await? {
            let Some(asked) = by_key.get(key.as_bytes()) else { continue };
            let now = match found {
                Found::Several => Some(Now::Several),
                Found::One(address) => self.at(connection, &key, address).await?,
            };
            current.extend(now.map(|now| (asked.key.as_bytes(), now)));
        }
        Ok(current)
    }

    /// The row at this address, locked, where it still holds the key.
    async fn at(
        &self,
        connection: &mut MySqlConnection,
        key: &Key,
        address: Address,
    ) -> Result<Option<Now>, EngineError> {
        let mut arguments = MySqlArguments::default();
        for bind in &address.binds {
            bind.push(&mut arguments).map_err(|error| errors::database(self.during, &error))?;
        }
        let rows =
            fetch::read_at(connection, self.access, self.during, &address.condition, arguments).await?;
        let mut rows = rows.into_iter();
        Ok(match (rows.next(), rows.next()) {
            (None, _) => None,
            (Some(row), None) => (row.key == *key).then_some(Now::Row(row.row, Place::At(address))),
            (Some(_), Some(_)) => Some(Now::Several),
        })
    }

    fn several(&self) -> Rejection {
        let names: Vec<&str> = self.access.key_columns().iter().map(|column| column.name.as_str()).collect();
        let reason = format!("several rows hold this key in other spellings (key {})", names.join(", "));
        Rejection { kind: RejectionKind::Other, reason }
    }

    fn prepare(
        &self,
        at: usize,
        change: &Change,
        asked: &Asked<'_>,
        place: Option<&Place>,
    ) -> Result<Result<Pending, Rejection>, EngineError> {
        let malformed = |error: crate::model::canonical::DecodeError| {
            EngineError::new(ErrorKind::Row, self.during, error.to_string())
        };
        let (operation, whole) = (change.operation(), self.whole || change.before.is_none());
        let key = decode_key(&self.access.key_types(), change.key.as_bytes()).map_err(malformed)?;
        let row = match &change.after {
            Some(after) => decode_row(&self.access.row_types(), after.as_bytes()).map_err(malformed)?,
            None => Vec::new(),
        };
        let differs = match (&change.before, &change.after) {
            (Some(before), Some(after)) if !whole => differing(before, after).map_err(malformed)?,
            _ => vec![true; row.len()],
        };
        let columns = self.access.row_columns().iter().zip(&differs).enumerate();
        let columns = columns.filter(|(_, (column, differs))| is_writable(column) && **differs);
        let columns: Vec<usize> = columns.map(|(at, _)| at).take_while(|at| *at < row.len()).collect();
        let bound = || {
            let columns_of_key =
                if whole && operation != Operation::Delete { self.access.key_columns() } else { &[] };
            let key = columns_of_key.iter().zip(&key).map(|(column, value)| bind(column, value));
            let row = columns.iter().filter_map(|at| self.access.row_columns().get(*at).zip(row.get(*at)));
            let row = row.map(|(column, value)| bind(column, value));
            let place = place.cloned().or_else(|| asked.usual.clone().map(Place::Key));
            Ok(Pending {
                at,
                operation,
                place: place.unwrap_or(Place::Key(Vec::new())),
                key: key.collect::<Result<_, String>>()?,
                row: row.collect::<Result<_, String>>()?,
                columns: columns.clone(),
            })
        };
        Ok(match bound() {
            Err(reason) => Err(Rejection { kind: RejectionKind::Value, reason }),
            Ok(ready) if ready.bytes() + 4096 > self.packet_max => Err(Rejection {
                kind: RejectionKind::Value,
                reason: "the row is larger than the server's max_allowed_packet".to_owned(),
            }),
            Ok(ready) => Ok(ready),
        })
    }
}
