-- To how many ns the clocks of a run agree. Filled by nsysmoe.analysis, which knows the clocks of
-- files beside those that view clocks tells.
create table nsysmoe.clock_residual (
    residual_ns bigint not null
);
