#!/usr/bin/env node
// @ts-check
/*
 * Writes the table of commands into docs/reference/commands.md, from what each command says of
 * itself.
 *
 *   node test/docs/commands.mjs      after npm run build:ts
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { COMMANDS } from '../../dist/cli/commands.js';
import { root } from './blocks.mjs';
import { commandTable } from './command-table.mjs';

const file = join(root, 'docs/reference/commands.md');
const [head = ''] = readFileSync(file, 'utf8').split('| command |');
writeFileSync(file, `${head}${commandTable(COMMANDS)}\n`);
