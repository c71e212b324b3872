// The hub of events: what the parts of the engine publish goes to the listeners that asked for it (section 2.5).
import type { Events, LifecycleEvent } from '../types.ts';
import { inProject } from '../projects/project-url.ts';
import { currentRequestor } from './requestor.ts';

export const EVENT_TYPES = ['lifecycle', 'operation', 'logging'] as const;
export type EventType = (typeof EVENT_TYPES)[number];

/** One event as it goes over the wire. */
export interface EngineEvent {
  readonly type: EventType;
  readonly timestamp: string;
  readonly metadata: Readonly<Record<string, unknown>>;
  readonly location: string;
  /** Absent: for everyone. */
  readonly project?: string;
}

export interface EventFilter {
  readonly types: ReadonlySet<EventType>;
  /** Undefined: all projects. */
  readonly project?: string;
}

/** Gets the event as JSON text, made once for all listeners. */
export type EventListener = (text: string, event: EngineEvent) => void;

export interface EventHub extends Events {
  publish(type: EventType, metadata: Readonly<Record<string, unknown>>, project?: string): void;
  subscribe(filter: EventFilter, listener: EventListener): Disposable;
}

export function createEvents(): EventHub {
  const listeners = new Map<EventListener, EventFilter>();

  const wants = (filter: EventFilter, event: EngineEvent) =>
    filter.types.has(event.type) &&
    (filter.project === undefined || event.project === undefined || filter.project === event.project);

  function publish(type: EventType, metadata: Readonly<Record<string, unknown>>, project?: string): void {
    if (listeners.size === 0) return;
    const timestamp = new Date().toISOString();
    const event = { type, timestamp, metadata, location: 'none', ...(project !== undefined && { project }) };
    let text: string | undefined;
    for (const [listener, filter] of listeners) {
      if (wants(filter, event)) listener((text ??= JSON.stringify(event)), event);
    }
  }

  return {
    publish,
    lifecycle({ action, source, project = 'default', context }: LifecycleEvent): void {
      const requestor = currentRequestor();
      const url = inProject(source, project);
      publish(
        'lifecycle',
        { action, source: url, ...(context && { context }), ...(requestor && { requestor }) },
        project,
      );
    },
    subscribe(filter, listener) {
      listeners.set(listener, filter);
      return { [Symbol.dispose]: () => void listeners.delete(listener) };
    },
  };
}
