-- What nsys itself had to say about the capture (seen from schema 3.11.1 on).
create table nsys.DIAGNOSTIC_EVENT (
    severity bigint,
    text varchar
);
