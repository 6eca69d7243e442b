// Runs one statement with node-postgres. JSON on stdin: {"parameters": libpq's, as strings, "sql": the statement}.
'use strict';

const { existsSync, readFileSync } = require('node:fs');
const { Client } = require('pg');

function tls(parameters) {
  const mode = parameters.sslmode ?? 'disable';
  if (mode === 'disable') return false;
  const options = { rejectUnauthorized: mode !== 'require' };
  if (mode === 'verify-ca') options.checkServerIdentity = () => undefined;
  else if (mode !== 'require' && mode !== 'verify-full') throw new Error(`sslmode ${mode} is not known here`);
  const read = (name) => readFileSync(parameters[name]);
  if (mode !== 'require') options.ca = read('sslrootcert');
  if (existsSync(parameters.sslcert ?? '')) Object.assign(options, { cert: read('sslcert'), key: read('sslkey') });
  return options;
}

async function main() {
  const { parameters, sql } = JSON.parse(readFileSync(0, 'utf8'));
  const client = new Client({
    host: parameters.host,
    port: Number(parameters.port),
    database: parameters.dbname,
    user: parameters.user,
    password: parameters.password,
    sslnegotiation: parameters.sslnegotiation,
    ssl: tls(parameters),
  });
  await client.connect();
  const { rows } = await client.query({ text: sql, rowMode: 'array' });
  for (const row of rows) console.log(row.map((value) => value ?? '').join('\t'));
  await client.end();
}

main().catch((failure) => {
  console.error(`${failure.code ?? ''} ${failure.message}`);
  process.exit(1);
});
