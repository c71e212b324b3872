// Who asks for what: the request context that travels with every message (nova-compute-contract section 2).
import { randomUUID } from 'node:crypto';
import type { WireContext } from '#src/messaging/types.ts';
import { wireTime } from './objects/wire.ts';

export type ReadDeleted = 'no' | 'yes' | 'only';

/** The only form that Python reads: UTC, no zone, and a fraction is mandatory. */
const TIMESTAMP = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{1,6}$/;

/**
 * Immutable. What was received is propagated unchanged into every message sent for the same request, keys that we do not
 * know (`trace_info`, `traceparent`) included.
 */
export class RequestContext {
  readonly #fields: WireContext;

  private constructor(fields: WireContext) {
    this.#fields = fields;
  }

  static fromWire(fields: WireContext): RequestContext {
    return new RequestContext({ ...fields });
  }

  /** The context of background work: nobody's, admin, without a token, a request of its own. */
  static admin(): RequestContext {
    const none = Object.fromEntries(ABSENT_IN_ADMIN.map((key) => [key, null]));
    return new RequestContext({
      ...none,
      is_admin: true,
      read_only: false,
      show_deleted: false,
      request_id: `req-${randomUUID()}`,
      roles: [],
      user_identity: '- - - - -',
      is_admin_project: true,
      read_deleted: 'no',
      timestamp: wireTime(new Date()),
      service_catalog: [],
    });
  }

  get requestId(): string {
    return this.#string('request_id') ?? '';
  }

  /** The id that the first service of a chain gave the request. */
  get globalRequestId(): string | undefined {
    return this.#string('global_request_id');
  }

  get projectId(): string | undefined {
    return this.#string('project_id') ?? this.#string('project');
  }

  get userId(): string | undefined {
    return this.#string('user_id') ?? this.#string('user');
  }

  get projectName(): string | undefined {
    return this.#string('project_name');
  }

  get userName(): string | undefined {
    return this.#string('user_name');
  }

  /** The user's Keystone token: a secret. */
  get authToken(): string | undefined {
    return this.#string('auth_token');
  }

  get roles(): readonly string[] {
    const roles = this.#fields['roles'];
    return Array.isArray(roles) ? roles.filter((role) => typeof role === 'string') : [];
  }

  get isAdmin(): boolean {
    return this.#fields['is_admin'] === true;
  }

  get readDeleted(): ReadDeleted {
    const value = this.#fields['read_deleted'];
    return value === 'yes' || value === 'only' ? value : 'no';
  }

  get serviceCatalog(): readonly unknown[] {
    const catalog = this.#fields['service_catalog'];
    return Array.isArray(catalog) ? catalog : [];
  }

  /** When the request was made; now, when the received text is not in the form of section 2. */
  get timestamp(): Date {
    const text = this.#string('timestamp');
    return text !== undefined && TIMESTAMP.test(text) ? new Date(`${text}Z`) : new Date();
  }

  /** The same request with an administrator's rights. */
  elevated(): RequestContext {
    const roles = this.roles.includes('admin') ? this.roles : [...this.roles, 'admin'];
    return this.#with({ is_admin: true, roles });
  }

  /** For the calls that need rows of deleted objects too. */
  withReadDeleted(readDeleted: ReadDeleted): RequestContext {
    return this.#with({ read_deleted: readDeleted });
  }

  /** Without secrets, for notifications. */
  redacted(): RequestContext {
    const { service_catalog: _catalog, ...rest } = this.#fields;
    return new RequestContext({ ...rest, auth_token: null });
  }

  toWire(): WireContext {
    const text = this.#string('timestamp');
    if (text !== undefined && TIMESTAMP.test(text)) return this.#fields;
    return { ...this.#fields, timestamp: wireTime(new Date()) };
  }

  /** What a log shows. */
  toJSON(): Readonly<Record<string, unknown>> {
    return { requestId: this.requestId, projectId: this.projectId, userId: this.userId };
  }

  #with(changes: WireContext): RequestContext {
    return new RequestContext({ ...this.#fields, ...changes });
  }

  #string(key: string): string | undefined {
    const value = this.#fields[key];
    return typeof value === 'string' ? value : undefined;
  }
}

const ABSENT_IN_ADMIN = [
  'user',
  'user_id',
  'project',
  'project_id',
  'domain',
  'user_domain',
  'project_domain',
  'system_scope',
  'auth_token',
  'global_request_id',
  'resource_uuid',
  'user_name',
  'project_name',
  'remote_address',
  'quota_class',
] as const;
