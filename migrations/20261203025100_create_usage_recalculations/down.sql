DROP TABLE usage_recalculations;
