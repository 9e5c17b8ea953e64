-- Alerts when the usage of a tenant reaches a threshold of its quota; see
-- `docs/decisions/0013-alerts-by-level-crossing.md`.

SET LOCAL lock_timeout = '10s';

-- Each row is one crossing, inserted by the trigger `usage_crossed` in the transaction that causes it. The trigger
-- deletes the oldest rows.
CREATE TABLE quota_alerts (
    tenant_id uuid NOT NULL,
    -- Ascends without gaps, in the order of the crossings.
    number bigint NOT NULL CHECK (number > 0),
    id uuid NOT NULL,
    alert_level smallint NOT NULL CHECK (alert_level BETWEEN {alert_level.warning} AND {alert_level.critical}),
    -- The threshold that was reached, and the usage and the limit after the change.
    threshold_percent smallint NOT NULL,
    used_bytes bigint NOT NULL,
    limit_bytes bigint NOT NULL,
    create_time timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, number)
);
CALL app.protect('quota_alerts');
GRANT INSERT, DELETE ON quota_alerts TO strongroom_app, strongroom_system;

-- The highest threshold whose alert is raised and not re-armed.
ALTER TABLE quotas ADD COLUMN alert_level smallint NOT NULL DEFAULT {alert_level.none}
    CHECK (alert_level BETWEEN {alert_level.none} AND {alert_level.critical});
-- The usage at or above which the level rises, and the usage below which it falls. They make the condition of the
-- trigger cheap. The default lets the first change of each quota compute them.
ALTER TABLE quotas ADD COLUMN alert_above_bytes bigint NOT NULL DEFAULT 0;
ALTER TABLE quotas ADD COLUMN alert_below_bytes bigint NOT NULL DEFAULT 0;
-- The number of alerts that were ever raised.
ALTER TABLE quotas ADD COLUMN alert_count bigint NOT NULL DEFAULT 0 CHECK (alert_count >= 0);
ALTER TABLE quotas ADD COLUMN last_warning_sent_time timestamptz;

{function.raise_quota_alert}
-- After the update, because a trigger before it would lock the row a second time in every commit.
CREATE TRIGGER usage_crossed
    AFTER UPDATE OF used_bytes, limit_bytes, warning_percent, critical_percent ON quotas
    FOR EACH ROW WHEN (NEW.used_bytes >= NEW.alert_above_bytes OR NEW.used_bytes < NEW.alert_below_bytes
        OR NEW.limit_bytes <> OLD.limit_bytes OR NEW.warning_percent <> OLD.warning_percent
        OR NEW.critical_percent <> OLD.critical_percent)
    EXECUTE FUNCTION app.raise_quota_alert();
