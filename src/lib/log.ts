// Structured logging: the interface that everything takes, and the winston logger behind it.
import winston from 'winston';
import { LogSink } from './log-sink.ts';

const STDERR = 2;

export type LogFields = Readonly<Record<string, unknown>>;

export interface Log {
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
}

/** A log whose level can be changed while it is used. */
export interface AdjustableLog extends Log {
  level: string;
}

export interface LogOptions {
  readonly level: 'debug' | 'info' | 'warn' | 'error';
  /** Absent: standard error. */
  readonly file?: string;
}

function describe(error: Error): Record<string, unknown> {
  const { name, message, stack, cause, ...fields } = error;
  return { name, message, ...fields, stack, ...(cause instanceof Error ? { cause: describe(cause) } : {}) };
}

/** winston's default writes an Error as `{}`. */
const errorsAsData = winston.format((info) => {
  for (const [key, value] of Object.entries(info)) if (value instanceof Error) info[key] = describe(value);
  return info;
});

export function createLog({ level, file }: LogOptions): AdjustableLog {
  return winston.createLogger({
    level,
    format: winston.format.combine(errorsAsData(), winston.format.timestamp(), winston.format.json()),
    transports: [new winston.transports.Stream({ stream: new LogSink(file ?? STDERR), eol: '\n' })],
  });
}

export { silentLog } from './silent-log.ts';
