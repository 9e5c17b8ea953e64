-- Limits of requests per second that replace those of the configuration for one tenant and its callers. An operator sets
-- them with `UpdateTenant`. The keys are those of the configuration; an absent one means the limit of the configuration.

SET LOCAL lock_timeout = '10s';

ALTER TABLE tenants ADD COLUMN rate_limits jsonb NOT NULL DEFAULT '{}'
    CONSTRAINT tenants_rate_limits_check CHECK (jsonb_typeof(rate_limits) = 'object');
GRANT UPDATE (rate_limits) ON tenants TO strongroom_app;
