// When scheduled snapshots are due: cron expressions of five fields and LXD's aliases, several of either separated by commas.
import type { ScheduledTask } from 'node-cron';
import { ownValue } from '#src/lib/own-value.ts';
import { endOf } from '../server/expiry.ts';
import { ZERO_TIME } from '../db/records.ts';
import { cron as nodeCron } from './cron.ts';

const ALIASES: Readonly<Record<string, string>> = {
  '@hourly': '0 * * * *',
  '@daily': '0 0 * * *',
  '@midnight': '0 0 * * *',
  '@weekly': '0 0 * * 0',
  '@monthly': '0 0 1 * *',
  '@annually': '0 0 1 1 *',
  '@yearly': '0 0 1 1 *',
};

/** Parsing costs, and few expressions are in use. */
const tasks = new Map<string, ScheduledTask>();
const MAX_TASKS = 1000;

/** Commas divide expressions only where an alias is among them; inside an expression they divide numbers. */
export function expressionsOf(schedule: string): readonly string[] {
  const parts = schedule.includes('@') ? schedule.split(/,\s+|,(?=@)/u) : [schedule];
  return parts.map((part) => part.trim()).filter((part) => part !== '');
}

function matches(expression: string, minute: Date): boolean {
  const cron = ownValue(ALIASES, expression) ?? expression;
  if (cron.startsWith('@')) return false;
  let task = tasks.get(cron);
  if (!task) {
    if (tasks.size >= MAX_TASKS) forgetAll();
    task = nodeCron().createTask(cron, () => undefined);
    tasks.set(cron, task);
  }
  return task.match(minute);
}

function forgetAll(): void {
  for (const task of tasks.values()) void task.destroy();
  tasks.clear();
}

/** Whether the schedule names the minute that `now` is in. */
export function isDue(schedule: string, now: Date): boolean {
  const minute = new Date(now);
  minute.setSeconds(0, 0);
  const expressions = expressionsOf(schedule);
  if (expressions.includes('@never')) return false;
  return expressions.some((expression) => matches(expression, minute));
}

/** Whether a start of the instance is an occasion. */
export function isDueAtStart(schedule: string): boolean {
  return expressionsOf(schedule).includes('@startup');
}

/** `snapshots.expiry` counted from `now`; none: the zero time. */
export function expiryOf(span: string, now: Date): string {
  return span.trim() === '' ? ZERO_TIME : endOf(span, now).toISOString();
}

export function isExpired(expiresAt: string, now: Date): boolean {
  const time = Date.parse(expiresAt);
  return time > 0 && time <= now.getTime();
}
