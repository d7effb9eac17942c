//! Catalog types into column types.
//!
//! | PostgreSQL | here |
//! | --- | --- |
//! | bool; int2, int4, int8; numeric, money; float4, float8 | `Bool`, `Int`, `Decimal`, `Float` |
//! | text, varchar, char(n), name, "char", citext, enums | `Text` |
//! | bytea; bit, varbit; uuid; json, jsonb | `Bytes`, `Bits`, `Uuid`, `Json` |
//! | date, time, timetz, timestamp, timestamptz, interval | the same |
//! | arrays of any of these | `Array` |
//! | domains | what their base type is |
//! | inet, cidr, macaddr, macaddr8, xml, tsvector, tsquery, jsonpath, point, line, lseg, box, path, polygon, circle, ranges, multiranges, pg_lsn, oid, xid, xid8, cid, tid, reg*, pg_snapshot, txid_snapshot, int2vector, oidvector, aclitem, refcursor, composite types, hstore, ltree, cube and other types of extensions | `Named`, by their text form |
//! | pseudo-types, and what the catalog does not explain | `Unsupported` |

use std::collections::HashMap;

use crate::model::ColumnType;

/// A row of `pg_type`.
#[derive(Debug, Clone)]
pub(super) struct CatalogType {
    pub name: String,
    /// The schema is `pg_catalog`.
    pub builtin: bool,
    /// b base, c composite, d domain, e enum, p pseudo, r range, m multirange.
    pub kind: char,
    /// The element, of true arrays only.
    pub element: i64,
    /// What a domain is over, with its own modifier.
    pub base: i64,
    pub modifier: i32,
    /// `format_type` without modifier, fit for a cast that cannot cut a value.
    pub bare: String,
    /// Its arrays' elements are parted by commas when they are written as text.
    pub comma: bool,
    /// The schema of the equality that its indexes have, where that is none of the server's own: only a superuser gives a type
    /// its index's operators, so it is no operator that others planted.
    pub equality: Option<String>,
}

impl CatalogType {
    pub(super) fn is_citext(&self) -> bool {
        self.name == "citext" && !self.builtin
    }
}

pub(super) type Types = HashMap<i64, CatalogType>;

/// Domains nest; the catalog does not let them form a ring, but nothing here relies on that.
const NESTING_MAX: usize = 64;

/// The type behind any domains, and the modifier that holds.
pub(super) fn base_of(types: &Types, mut oid: i64, mut modifier: i32) -> Option<(&CatalogType, i32)> {
    for _ in 0..NESTING_MAX {
        let ty = types.get(&oid)?;
        if ty.kind != 'd' {
            return Some((ty, modifier));
        }
        if ty.modifier != -1 {
            modifier = ty.modifier;
        }
        oid = ty.base;
    }
    None
}

/// The type of an array's elements, behind any domains; `None` of another type.
pub(super) fn element_of<'a>(types: &'a Types, array: &CatalogType) -> Option<&'a CatalogType> {
    (array.element != 0).then(|| base_of(types, array.element, -1).map(|(ty, _)| ty)).flatten()
}

pub(super) fn column_type(types: &Types, oid: i64, modifier: i32, declared: &str) -> ColumnType {
    let Some((ty, modifier)) = base_of(types, oid, modifier) else {
        return ColumnType::Unsupported(declared.to_owned());
    };
    if ty.element != 0 {
        let inner = column_type(types, ty.element, modifier, declared);
        return match inner {
            ColumnType::Unsupported(_) => ColumnType::Unsupported(declared.to_owned()),
            inner => ColumnType::Array(Box::new(inner)),
        };
    }
    match ty.kind {
        'e' => return ColumnType::Text { padded: false },
        'p' => return ColumnType::Unsupported(ty.name.clone()),
        'b' if ty.builtin => {}
        // Extensions' types by their text form; citext is text that compares without case.
        'b' if ty.name == "citext" => return ColumnType::Text { padded: false },
        _ => return ColumnType::Named(ty.name.clone()),
    }
    match ty.name.as_str() {
        "bool" => ColumnType::Bool,
        "int2" => ColumnType::Int { bits: 16, signed: true },
        "int4" => ColumnType::Int { bits: 32, signed: true },
        "int8" => ColumnType::Int { bits: 64, signed: true },
        "numeric" => numeric(modifier),
        "money" => ColumnType::Decimal { precision: None, scale: Some(2) },
        "float4" => ColumnType::Float { bits: 32 },
        "float8" => ColumnType::Float { bits: 64 },
        "text" | "varchar" | "name" | "char" => ColumnType::Text { padded: false },
        "bpchar" => ColumnType::Text { padded: true },
        "bytea" => ColumnType::Bytes,
        "bit" | "varbit" => ColumnType::Bits,
        "uuid" => ColumnType::Uuid,
        "json" | "jsonb" => ColumnType::Json,
        "date" => ColumnType::Date,
        "time" => ColumnType::Time { digits: digits(modifier) },
        "timetz" => ColumnType::TimeTz { digits: digits(modifier) },
        "timestamp" => ColumnType::Timestamp { digits: digits(modifier) },
        "timestamptz" => ColumnType::TimestampTz { digits: digits(modifier) },
        "interval" => ColumnType::Interval,
        "unknown" => ColumnType::Unsupported(ty.name.clone()),
        _ => ColumnType::Named(ty.name.clone()),
    }
}

/// The modifier holds precision and scale above a header of four; the scale has eleven bits and a sign.
fn numeric(modifier: i32) -> ColumnType {
    if modifier < 4 {
        return ColumnType::Decimal { precision: None, scale: None };
    }
    let packed = modifier - 4;
    let scale = ((packed & 0x7ff) ^ 1024) - 1024;
    // A negative scale rounds left of the point, which no comparison does: values are compared as they are.
    ColumnType::Decimal {
        precision: u32::try_from(packed >> 16 & 0xffff).ok(),
        scale: u32::try_from(scale).ok(),
    }
}

fn digits(modifier: i32) -> u8 {
    u8::try_from(modifier).ok().filter(|digits| *digits <= 6).unwrap_or(6)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ty(name: &str, kind: char) -> CatalogType {
        CatalogType {
            name: name.into(),
            builtin: true,
            kind,
            element: 0,
            base: 0,
            modifier: -1,
            bare: name.into(),
            comma: true,
            equality: None,
        }
    }

    #[test]
    fn modifiers_give_precision_and_digits() {
        let types: Types = [(1700, ty("numeric", 'b')), (1114, ty("timestamp", 'b'))].into();
        // numeric(12,2), numeric(2,-3), numeric
        for (modifier, precision, scale) in
            [(786_438, Some(12), Some(2)), ((2 << 16 | 2045) + 4, Some(2), None), (-1, None, None)]
        {
            assert_eq!(column_type(&types, 1700, modifier, "x"), ColumnType::Decimal { precision, scale });
        }
        assert_eq!(column_type(&types, 1114, 3, "x"), ColumnType::Timestamp { digits: 3 });
        assert_eq!(column_type(&types, 1114, -1, "x"), ColumnType::Timestamp { digits: 6 });
    }

    #[test]
    fn domains_and_arrays_are_looked_through() {
        let types: Types = [
            (1, ty("numeric", 'b')),
            (2, CatalogType { base: 1, modifier: 786_438, ..ty("price", 'd') }),
            (3, CatalogType { base: 2, ..ty("price2", 'd') }),
            (4, CatalogType { element: 3, ..ty("_price2", 'b') }),
            (5, CatalogType { builtin: false, ..ty("hstore", 'b') }),
            (6, CatalogType { base: 6, ..ty("ring", 'd') }),
            (7, ty("record", 'p')),
        ]
        .into();
        let price = ColumnType::Decimal { precision: Some(12), scale: Some(2) };
        assert_eq!(column_type(&types, 3, -1, "price2"), price);
        assert_eq!(column_type(&types, 4, -1, "price2[]"), ColumnType::Array(Box::new(price)));
        assert_eq!(column_type(&types, 5, -1, "hstore"), ColumnType::Named("hstore".into()));
        for unsupported in [6, 7, 8] {
            assert!(matches!(column_type(&types, unsupported, -1, "x"), ColumnType::Unsupported(_)));
        }
    }
}
