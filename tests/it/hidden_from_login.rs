//! What a login of MySQL may not see may hang on the rows that it deletes.

use super::support::process::trueup;
use super::support::servers::MysqlDb;

fn login(db: &MysqlDb, who: &str, rights: &str) -> String {
    let name = db.url().rsplit('/').next().unwrap().to_owned();
    let user = format!("{who}_{name}");
    db.execute(&format!("CREATE USER '{user}'@'127.0.0.1' IDENTIFIED BY 'pw'"));
    db.execute(&format!("GRANT SELECT, INSERT, UPDATE, DELETE ON {name}.{rights} TO '{user}'@'127.0.0.1'"));
    let mut url = url::Url::parse(&db.url()).unwrap();
    url.set_username(&user).unwrap();
    url.set_password(Some("pw")).unwrap();
    url.into()
}

#[test]
fn a_delete_that_may_cascade_into_a_table_that_the_login_does_not_see_needs_leave() {
    let (source, target) = (MysqlDb::create(), MysqlDb::create());
    source.execute("CREATE TABLE pp (id INT PRIMARY KEY, v INT); INSERT INTO pp VALUES (1, 1)");
    target.execute(
        "CREATE TABLE pp (id INT PRIMARY KEY, v INT); INSERT INTO pp VALUES (1, 1), (2, 2);
         CREATE TABLE cc (id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES pp (id) ON DELETE CASCADE); INSERT INTO cc VALUES (10, 1), (20, 2)",
    );
    let from = source.url();
    let repair = |to: &str, more: &[&str]| {
        let args =
            ["repair", &from, to, "-t", "pp", "--allow", "insert,update,delete", "--no-ledger", "--quiet"];
        trueup(&[&args[..], more].concat())
    };
    for (who, rights) in [("one", "pp"), ("all", "*")] {
        let told = repair(&login(&target, who, rights), &[]);
        assert_eq!(told.status, 2, "{rights}: {told:?}");
        assert!(format!("{told:?}").contains("--allow-cascade"), "{rights}: {told:?}");
        assert_eq!(target.scalar("SELECT COUNT(*) FROM cc").as_deref(), Some("2"), "{rights}");
    }
    // Updates and inserts go on; and without a child a login of the whole schema deletes.
    target.execute("UPDATE pp SET v = 9 WHERE id = 1");
    let to = login(&target, "up", "pp");
    let updated =
        trueup(&["repair", &from, &to, "-t", "pp", "--no-ledger", "--quiet", "--allow", "insert,update"]);
    assert_eq!(updated.status, 1, "{updated:?}");
    assert_eq!(target.scalar("SELECT v FROM pp WHERE id = 1").as_deref(), Some("1"));
    target.execute("DROP TABLE cc");
    let deleted = repair(&login(&target, "last", "*"), &[]);
    assert_eq!(deleted.status, 0, "{deleted:?}");
}
